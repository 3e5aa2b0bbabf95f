"""Quantizers: latents <-> integers. One interface (`base`), one file per kind."""

from dataclasses import fields, replace
from typing import Any

from tokenizer.quantizers.base import Quantized, Quantizer, QuantizerConfig
from tokenizer.quantizers.fsq import FSQ, FSQConfig
from tokenizer.quantizers.lfq import LFQ, LFQConfig
from tokenizer.quantizers.residual import Product, ProductConfig, Residual, ResidualConfig
from tokenizer.quantizers.vq import VQ, VQConfig
from training.disk.records import judged, kind_of
from training.errors import BadInput

__all__ = [
    "FSQ",
    "LFQ",
    "VQ",
    "FSQConfig",
    "LFQConfig",
    "Product",
    "ProductConfig",
    "Quantized",
    "Quantizer",
    "QuantizerConfig",
    "Residual",
    "ResidualConfig",
    "VQConfig",
]

CONFIGS: dict[str, type[QuantizerConfig]] = {
    "fsq": FSQConfig,
    "vq": VQConfig,
    "lfq": LFQConfig,
    "residual": ResidualConfig,
    "product": ProductConfig,
}


def describe(config: QuantizerConfig) -> dict[str, Any]:
    """What a manifest says of a quantizer."""
    (name,) = (name for name, kind in CONFIGS.items() if type(config) is kind)
    return {"name": name, **{f.name: _plain(getattr(config, f.name)) for f in fields(config)}}  # type: ignore[arg-type]


def from_description(values: Any, where: str = "quantizer") -> QuantizerConfig:
    """The config that `describe` wrote.

    Args:
        where: the values come from, for messages.

    Raises:
        BadInput: no such quantizer in this release, or settings that it does not know.
    """
    kind, rest = kind_of(values, CONFIGS, where)
    inner = rest.pop("quantizer", None)
    config: Any = judged(kind, rest, where)
    if inner is None:
        return config
    if not hasattr(config, "quantizer"):
        raise BadInput(f"{where}: quantizer is unknown")
    return replace(config, quantizer=from_description(inner, f"{where}.quantizer"))


def _plain(value: Any) -> Any:
    if isinstance(value, QuantizerConfig):
        return describe(value)
    return list(value) if isinstance(value, list | tuple) else value
