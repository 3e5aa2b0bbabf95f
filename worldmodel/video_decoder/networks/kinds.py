"""The kinds of video decoders, by name."""

from dataclasses import asdict
from typing import Any

from drives.tokens.spec import TokenSpec
from training.disk.judging import judged, kind_of
from worldmodel.video_decoder.networks.config import (
    DiffusionDecoderConfig,
    OnePassDecoderConfig,
    VideoDecoderConfig,
)
from worldmodel.video_decoder.networks.diffusion_decoder import DiffusionDecoder
from worldmodel.video_decoder.networks.one_pass_decoder import OnePassDecoder

VideoDecoderNetwork = DiffusionDecoder | OnePassDecoder
KINDS: dict[str, type[Any]] = {
    "diffusion_decoder": DiffusionDecoderConfig,
    "one_pass_decoder": OnePassDecoderConfig,
}
NETWORKS: dict[type[Any], type[Any]] = {
    DiffusionDecoderConfig: DiffusionDecoder,
    OnePassDecoderConfig: OnePassDecoder,
}


def build_video_decoder(config: VideoDecoderConfig, spec: TokenSpec) -> VideoDecoderNetwork:
    """A newly initialised network of a config."""
    network: VideoDecoderNetwork = NETWORKS[type(config)](config, spec)
    return network


def describe_decoder(config: VideoDecoderConfig) -> dict[str, Any]:
    """The manifest entry of a config: its kind and its values."""
    (name,) = (name for name, kind in KINDS.items() if type(config) is kind)
    plain = {k: list(v) if isinstance(v, list | tuple) else v for k, v in asdict(config).items()}
    return {"name": name, **plain}


def decoder_from_description(values: Any, where: str) -> VideoDecoderConfig:
    """The config that `describe_decoder` wrote; BadInput for an unknown kind or a wrong value."""
    kind, rest = kind_of(values, KINDS, where)
    config: VideoDecoderConfig = judged(kind, rest, where)
    return config
