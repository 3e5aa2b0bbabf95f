"""Quantizers: latents <-> integers. One interface (`base`), one file per kind."""

from dataclasses import fields
from typing import Any

from tokenizer.quantizers.base import Quantized, Quantizer, QuantizerConfig
from tokenizer.quantizers.fsq import FSQ, FSQConfig
from tokenizer.quantizers.lfq import LFQ, LFQConfig
from tokenizer.quantizers.residual import Product, ProductConfig, Residual, ResidualConfig
from tokenizer.quantizers.vq import VQ, VQConfig
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


def from_description(values: dict[str, Any]) -> QuantizerConfig:
    """The config that `describe` wrote.

    Raises:
        BadInput: no such quantizer in this release, or settings that it does not know.
    """
    rest = {k: from_description(v) if isinstance(v, dict) else v for k, v in values.items()}
    name = rest.pop("name", None)
    if name not in CONFIGS:
        raise BadInput(f"quantizer {name!r} is unknown here; known: {', '.join(CONFIGS)}")
    try:
        return CONFIGS[name](**rest)
    except TypeError as error:
        raise BadInput(f"quantizer {name!r}: {error}; it was written by another release") from error


def _plain(value: Any) -> Any:
    if isinstance(value, QuantizerConfig):
        return describe(value)
    return list(value) if isinstance(value, list | tuple) else value
