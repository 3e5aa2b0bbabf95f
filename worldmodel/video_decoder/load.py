"""Opens a trained video decoder: a run, a checkpoint, or one that ships with the package."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drives.tokens.spec import TokenSpec
from tokenizer.load import Tokenizer, load_tokenizer
from training.checkpoints.fitting import fitted
from training.checkpoints.folder import MANIFEST, open_checkpoint
from training.checkpoints.manifests import entries
from training.checkpoints.shipped import named, write_export
from training.errors import BadInput
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.decoder import TokenVideoDecoder
from worldmodel.video_decoder.networks.config import OnePassDecoderConfig, VideoDecoderConfig
from worldmodel.video_decoder.networks.kinds import (
    build_video_decoder,
    decoder_from_description,
    describe_decoder,
)

PRETRAINED = Path(__file__).parent / "pretrained"
KIND = "video_decoder"
AVERAGE = "ema.module."
OF_NOISE = ("num_steps", "image_share", "image_weight", "seed")  # of VideoDecodingConfig


@dataclass(frozen=True)
class VideoDecoderEntries:
    """Manifest entries of a video decoder besides `Head`."""

    network: dict[str, Any]
    spec: TokenSpec


def manifest_of_decoder(config: VideoDecoderConfig, spec: TokenSpec) -> dict[str, Any]:
    """Manifest entries from which `load_video_decoder` rebuilds the network."""
    return {"kind": KIND, "network": describe_decoder(config), "spec": asdict(spec)}


def load_video_decoder(
    path: str | Path,
    tokenizer: str | Path | Tokenizer | None = None,
    how: VideoDecodingConfig | None = None,
    setting: str = "ckpt",
) -> TokenVideoDecoder:
    """Open a shipped one, a run folder (its newest whole checkpoint) or a checkpoint folder.

    Its weights are their moving average.

    Args:
        tokenizer: that of the tokens; None: the one that its config names.
        setting: what names it, for messages.

    Raises:
        BadInput: not there, damaged, of another kind, or of another tokenizer; a setting of noise
            for a decoder that has none.
    """
    folder, manifest, stored = open_checkpoint(named(path, PRETRAINED, setting), KIND)
    entry = entries(VideoDecoderEntries, manifest, folder)
    config = decoder_from_description(entry.network, f"{folder / MANIFEST}: network")
    weights = {
        name.removeprefix(AVERAGE): value.float()
        for name, value in stored.items()
        if name.startswith(AVERAGE)
    }
    _check_effect(config, how or VideoDecodingConfig(), folder)
    network = fitted(lambda: build_video_decoder(config, entry.spec), weights, folder)
    network.eval().requires_grad_(False)
    if tokenizer is None:
        asked = ((manifest.get("config") or {}).get("data") or {}).get("tokenizer")
        if not isinstance(asked, str):
            raise BadInput(f"{folder}: names no tokenizer; give the one of its tokens")
        tokenizer = asked
    return TokenVideoDecoder(network, load_tokenizer(tokenizer), how, folder, manifest)


def _check_effect(config: VideoDecoderConfig, how: VideoDecodingConfig, folder: Path) -> None:
    """BadInput for settings without effect: one pass has no passes of DDIM and no noise."""
    if not isinstance(config, OnePassDecoderConfig):
        return
    usual = VideoDecodingConfig()
    for name in OF_NOISE:
        if (value := getattr(how, name)) != getattr(usual, name):
            raise BadInput(
                f"video.{name}={value}: {folder} decodes in one pass without noise; leave it out"
            )


def video_decoder_for(
    path: str | None,
    tokenizer: Tokenizer | None,
    fps: float,
    how: VideoDecodingConfig,
    device: str,
) -> TokenVideoDecoder | None:
    """The video decoder that a command names for tokens at a rate; None where it names none.

    Raises:
        BadInput: as `load_video_decoder`; settings of none, no tokenizer at hand, or tokens of
            another rate.
    """
    if path is None:
        if how != VideoDecodingConfig():
            raise BadInput("video.*: no video decoder is named; give video_decoder=RUN")
        return None
    if tokenizer is None:
        raise BadInput(
            f"video_decoder={path}: needs the tokenizer of these tokens; give tokenizer=FOLDER"
        )
    decoder = load_video_decoder(path, tokenizer, how, "video_decoder")
    if abs(fps / decoder.spec.fps - 1) > 0.01:
        raise BadInput(
            f"video_decoder={path}: was trained on {decoder.spec.fps:g} frames per second, and "
            f"these tokens have {fps:g}; give one of their rate"
        )
    return decoder.to(device)


def export_video_decoder(checkpoint: Path, out: Path, **facts: Any) -> None:
    """Write the averaged weights alone, in half precision, without places, with `facts`."""
    opened = open_checkpoint(checkpoint, KIND)
    weights = {k: v for k, v in opened.weights.items() if k.startswith(AVERAGE)}
    write_export(out, weights, opened.manifest, facts)
