"""Quantizers: latents <-> integers. One interface (`base`), one file per kind."""

from dataclasses import asdict
from typing import Any

from tokenizer.quantizers.base import Quantized, Quantizer
from tokenizer.quantizers.fsq import FSQ, FSQConfig
from tokenizer.quantizers.lookup import NearestConfig, SignConfig
from training.errors import BadInput

__all__ = ["FSQ", "FSQConfig", "Quantized", "Quantizer", "QuantizerConfig"]

QuantizerConfig = FSQConfig | NearestConfig | SignConfig
CONFIGS: dict[str, type[QuantizerConfig]] = {
    "fsq": FSQConfig,
    "nearest": NearestConfig,
    "sign": SignConfig,
}


def describe(config: QuantizerConfig) -> dict[str, Any]:
    """What a manifest says of a quantizer."""
    (name,) = (name for name, kind in CONFIGS.items() if isinstance(config, kind))
    return {"name": name, **asdict(config)}


def from_description(values: dict[str, Any]) -> QuantizerConfig:
    """The config that `describe` wrote.

    Raises:
        BadInput: no such quantizer in this release.
    """
    rest = dict(values)
    name = rest.pop("name")
    if name not in CONFIGS:
        raise BadInput(f"quantizer {name!r} is unknown here; known: {', '.join(CONFIGS)}")
    return CONFIGS[name](**rest)
