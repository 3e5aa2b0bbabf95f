"""Kinds of quantizers: names in checkpoints, configs and networks."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from tokenizer.quantizers.base import Quantizer
from tokenizer.quantizers.config import (
    FSQConfig,
    LFQConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    VQConfig,
)
from tokenizer.quantizers.fsq import FSQ
from tokenizer.quantizers.lfq import LFQ
from tokenizer.quantizers.residual import Product, Residual
from tokenizer.quantizers.vq import VQ
from training.disk.judging import judged, kind_of
from training.errors import BadInput

KINDS: dict[str, type[QuantizerConfig]] = {
    "fsq": FSQConfig,
    "vq": VQConfig,
    "lfq": LFQConfig,
    "residual": ResidualConfig,
    "product": ProductConfig,
}


BUILDERS: dict[type[QuantizerConfig], Callable[[Any], Quantizer]] = {
    FSQConfig: lambda config: FSQ(config.levels),
    VQConfig: VQ,
    LFQConfig: LFQ,
    ResidualConfig: lambda config: Residual(config, _several(config.quantizer, config.num_stages)),
    ProductConfig: lambda config: Product(_several(config.quantizer, config.num_groups)),
}


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """Build the quantizer of a config, untrained."""
    return BUILDERS[type(config)](config)


def describe(config: QuantizerConfig) -> dict[str, Any]:
    """A quantizer's entry in a manifest."""
    (name,) = (name for name, kind in KINDS.items() if type(config) is kind)
    return {"name": name, **{f.name: _plain(getattr(config, f.name)) for f in fields(config)}}  # type: ignore[arg-type]


def from_description(values: Any, where: str = "quantizer") -> QuantizerConfig:
    """The config that `describe` wrote.

    Args:
        where: origin of the values, for messages.

    Raises:
        BadInput: an unknown quantizer or unknown settings.
    """
    kind, rest = kind_of(values, KINDS, where)
    inner = rest.pop("quantizer", None)
    config: Any = judged(kind, rest, where)
    if inner is None:
        return config
    if not hasattr(config, "quantizer"):
        raise BadInput(f"{where}: quantizer is unknown")
    return replace(config, quantizer=from_description(inner, f"{where}.quantizer"))


def _several(config: QuantizerConfig, number: int) -> list[Quantizer]:
    return [build_quantizer(config) for _ in range(number)]


def _plain(value: Any) -> Any:
    if isinstance(value, QuantizerConfig):
        return describe(value)
    return list(value) if isinstance(value, list | tuple) else value
