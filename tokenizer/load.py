"""Opens a trained tokenizer: a run, a checkpoint, an export, or one that ships with the package."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from drives.clips.frame_stream import Fit
from drives.clips.preprocessing import Preprocessing
from drives.tokens.store import TokenSpec
from tokenizer.networks.base import DECODING, DriveDecoder, TokenNetwork
from tokenizer.networks.kinds import KINDS, NetworkConfig, build_network
from tokenizer.quantizers.kinds import describe, from_description
from training.checkpoints.fitting import fitted
from training.checkpoints.folder import (
    MANIFEST,
    OpenedCheckpoint,
    open_checkpoint,
)
from training.checkpoints.manifests import check_kind, entries, weights_hash
from training.checkpoints.shipped import named, write_export
from training.disk.judging import judged, kind_of
from training.errors import BadInput

PRETRAINED = Path(__file__).parent / "pretrained"
KIND = "tokenizer"
TOKENS_OF = "tokens_of"  # entry of a manifest: see `TokenizerEntries`
QUANTIZER = ".quantizer."
DECODERS = tuple(f"ema.module.{part}." for part in DECODING)


class Tokenizer(nn.Module):
    """A trained network in eval mode, with its identity.

    Attributes:
        hash: sha256 of the weights file.
        manifest: the checkpoint's manifest (config, figures, data).
        preprocessing: that of its training; `fit` and `encode` apply it.
    """

    def __init__(self, network: TokenNetwork, hash: str, manifest: dict[str, Any]) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.hash, self.manifest = hash, manifest
        self.preprocessing = Preprocessing.from_dict(manifest.get("preprocessing", {}))

    @cached_property
    def published_as(self) -> str:
        """The name of published weights; "" for those trained here."""
        return str(self.manifest.get("published", {}).get("name", ""))

    @cached_property
    def known_as(self) -> tuple[str, ...]:
        """What token stores and world models call its tokens; new ones take the first.

        Its hash and its published name; those of another, where only the decoder was trained.
        """
        own = (self.hash, *([self.published_as] if self.published_as else []))
        return tuple(self.manifest.get(TOKENS_OF) or own)

    def spec(self, fps: float) -> TokenSpec:
        """The `TokenSpec` of its tokens at a frame rate."""
        return spec_of(self.network, fps, self.known_as[0], self.preprocessing)

    @property
    def frames_per_step(self) -> int:
        """Frames per token step; a drive's first step holds one frame."""
        return self.network.config.frames_per_step

    @property
    def clip_frames(self) -> int:
        """Frames of a training clip."""
        return self.network.config.clip_frames

    @property
    def trained_fps(self) -> float | None:
        """Frames per second of its training; None where its manifest does not say."""
        fps = self.manifest.get("run", {}).get("fps")
        return fps if isinstance(fps, int | float) and fps > 0 else None

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def fit(
        self, frames: UInt8[np.ndarray, "n recorded_h recorded_w 3"]
    ) -> UInt8[Tensor, "n 3 h w"]:
        """Crop and scale recorded frames as in training.

        Raises:
            BadInput: no frames, not RGB, or too small for its window.
        """
        return self.preprocessing.fit(frames, self.network.config.image_size)

    def encode(self, frames: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "steps gh gw"]:
        """Tokens of frames in [-1, 1] from `fit`; a video tokenizer takes them as one clip.

        Raises:
            BadInput: no frames, not RGB, of another size, or in another range.
        """
        return self.network.encode(self._to_network(frames))

    def decode(self, tokens: Int[Tensor, "steps gh gw"]) -> Float[Tensor, "n 3 h w"]:
        """Frames in [-1, 1] of token grids; a video tokenizer takes them as one clip.

        Raises:
            BadInput: no tokens, one outside of the vocabulary, or grids of another size.
        """
        return self.network.decode(self._known(tokens)).float()

    def encode_stream(
        self, batches: Iterable[Float[Tensor, "_ 3 h w"]]
    ) -> Iterator[Int[Tensor, "_ gh gw"]]:
        """Tokens of a drive's consecutive frames, in batches of any size; as `encode`.

        A video tokenizer remembers what came before a batch; frames at the end that are fewer than
        a step have no tokens.
        """
        return self.network.encode_stream(map(self._to_network, batches))

    def decode_stream(
        self, batches: Iterable[Int[Tensor, "_ gh gw"]]
    ) -> Iterator[Float[Tensor, "_ 3 h w"]]:
        """Frames of a drive's consecutive token grids, in batches of any size; as `decode`."""
        frames = self.network.decode_stream(map(self._known, batches))
        return (batch.float() for batch in frames)

    def drive_decoder(self) -> DriveDecoder | None:
        """A stateful decoder of one drive's grids; None where each grid is one frame."""
        return self.network.drive_decoder()

    def _to_network(self, frames: Tensor) -> Tensor:
        if not len(frames) or frames.ndim < 4 or frames.shape[-3] != 3:
            raise BadInput(f"frames are {tuple(frames.shape)}; give at least one, [n 3 h w] in RGB")
        low, high = (float(x) for x in frames.aminmax())
        if not -1.01 < low <= high < 1.01:
            raise BadInput(f"frames are in [{low:g}, {high:g}]; give them in [-1, 1]")
        return self.preprocessing.to_network(frames)

    def _known(self, tokens: Tensor) -> Tensor:
        if not tokens.numel():
            raise BadInput(f"tokens are {tuple(tokens.shape)}; give at least one grid")
        grid = tuple(self.network.config.grid[1:])
        if tokens.ndim < 3 or tuple(tokens.shape[-2:]) != grid:
            raise BadInput(
                f"tokens are {tuple(tokens.shape)}, this tokenizer's are [steps {grid[0]} "
                f"{grid[1]}]; was it opened with another image_size?"
            )
        size = self.network.quantizer.vocab_size
        low, high = (int(x) for x in tokens.aminmax())
        if low < 0 or high >= size:
            raise BadInput(
                f"tokens are in {low}..{high}, this tokenizer has 0..{size - 1}; "
                "were they made by another one?"
            )
        return tokens


def spec_of(
    network: TokenNetwork, fps: float, hash: str, preprocessing: Preprocessing | None = None
) -> TokenSpec:
    """The `TokenSpec` of the tokens of a network at a frame rate."""
    height, width = network.config.image_size
    return TokenSpec(
        grid=network.config.grid,
        vocab_size=network.quantizer.vocab_size,
        fps=fps,
        frames_per_step=network.config.frames_per_step,
        image_size=(height, width),
        tokenizer=hash,
        factors=network.quantizer.factors,
        bit_order=network.quantizer.bit_order,
        preprocessing=preprocessing or Preprocessing(),
    )


def manifest_of(
    config: NetworkConfig, preprocessing: Preprocessing | None = None
) -> dict[str, Any]:
    """Manifest entries from which `load_tokenizer` rebuilds the network."""
    (name,) = (name for name, kind in KINDS.items() if type(config) is kind)
    plain = {k: list(v) if isinstance(v, list | tuple) else v for k, v in asdict(config).items()}
    plain["quantizer"] = describe(config.quantizer)
    manifest = {"kind": KIND, "network": {"name": name, **plain}}
    return manifest | ({"preprocessing": asdict(preprocessing)} if preprocessing else {})


def load_tokenizer(name: str | Path | Tokenizer) -> Tokenizer:
    """Open the tokenizer called `name`: a shipped one, a run folder, or a checkpoint folder.

    Loads the EMA weights. Nothing is unpickled. An open tokenizer is returned unchanged.

    Raises:
        BadInput: no such tokenizer, a damaged checkpoint, or one of another kind.
    """
    if isinstance(name, Tokenizer):
        return name
    return tokenizer_from(open_checkpoint(named(name, PRETRAINED, KIND), KIND))


def tokenizer_from(opened: OpenedCheckpoint) -> Tokenizer:
    """The tokenizer in a checkpoint.

    Raises:
        BadInput: as `load_tokenizer`.
    """
    path, manifest, everything = opened
    check_kind(manifest, path, KIND)
    config = _config(
        entries(TokenizerEntries, manifest, path).network, f"{path / MANIFEST}: network"
    )
    weights = {
        key.removeprefix("ema.module."): value.float()
        for key, value in everything.items()
        if key.startswith("ema.module.")
    }
    build: Callable[[], TokenNetwork] = partial(build_network, config)
    return Tokenizer(fitted(build, weights, path), weights_hash(manifest), manifest)


@dataclass(frozen=True)
class TokenizerEntries:
    """Entries of a tokenizer's manifest besides those of `Head`.

    Attributes:
        tokens_of: `Tokenizer.known_as` of another one, whose tokens these are.
    """

    network: dict[str, Any]
    tokens_of: tuple[str, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


def _config(values: dict[str, Any], where: str) -> NetworkConfig:
    """The config that `manifest_of` described."""
    kind, rest = kind_of(values, KINDS, where)
    if "levels" in rest:  # written when FSQ was the only quantizer
        rest["quantizer"] = {"name": "fsq", "levels": rest.pop("levels")}
    quantizer = from_description(rest.pop("quantizer", None), f"{where}.quantizer")
    return replace(judged(kind, rest, where), quantizer=quantizer)


def export_tokenizer(checkpoint: Path, out: Path, **facts: Any) -> None:
    """Write the EMA weights alone, in half precision, without places, with `facts`.

    The quantizer keeps full precision: it compares distances and counts beyond 65504. So does what
    makes another tokenizer's tokens, where half precision would change it.
    """
    opened = open_checkpoint(checkpoint, KIND)
    weights = {k: v for k, v in opened.weights.items() if k.startswith("ema.module.")}
    whole = {name for name in weights if QUANTIZER in name}
    if TOKENS_OF in opened.manifest:
        kept = {name: v for name, v in weights.items() if not name.startswith(DECODERS)}
        whole |= {name for name, value in kept.items() if not torch.equal(value, value.half())}
    write_export(out, weights, opened.manifest, facts, whole=whole)


def fit_of(tokenizer: Tokenizer) -> Fit:
    """`Tokenizer.fit` without the weights, for workers."""
    spec = tokenizer.spec(1.0)
    return partial(spec.preprocessing.fit, size=spec.image_size)
