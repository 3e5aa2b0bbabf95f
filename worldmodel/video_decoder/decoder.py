"""An opened video decoder: token grids of drives to frames, at their rate or a higher one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from drives.tokens.spec import TokenSpec
from tokenizer.load import Tokenizer
from training.errors import BadInput
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.motion.drafts import drafted
from worldmodel.video_decoder.networks.config import BACKWARD, FORWARD, INTERPOLATION
from worldmodel.video_decoder.networks.kinds import VideoDecoderNetwork
from worldmodel.video_decoder.networks.noise import ClipNoise
from worldmodel.video_decoder.tasks import DecodingTask
from worldmodel.video_decoder.tokens import FrozenTokenizer
from worldmodel.video_decoder.windows import check_overlap, decoding_order, upsampling_order


class TokenVideoDecoder:
    """Decodes clips of token grids, window by window.

    Args:
        network: in eval mode.
        tokenizer: that of the tokens; only a network with a draft decodes by it as well.
        how: the settings of decoding.

    Raises:
        BadInput: the tokenizer is another one than that of its training, or windows overlap wholly.
    """

    def __init__(
        self,
        network: VideoDecoderNetwork,
        tokenizer: Tokenizer,
        how: VideoDecodingConfig | None = None,
        path: Path | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> None:
        self.network, self.path, self.manifest = network, path, manifest or {}
        self.how = how or VideoDecodingConfig()
        if self.spec.tokenizer not in tokenizer.known_as:
            raise BadInput(
                f"{path or 'the video decoder'}: was trained on tokens of "
                f"{self.spec.tokenizer[:12]}, not of {tokenizer.hash[:12]}; give the tokenizer of "
                "its training"
            )
        self.opened, self.tokenizer = tokenizer, FrozenTokenizer(tokenizer)
        check_overlap(self.how.overlap, self.window_frames)

    @property
    def spec(self) -> TokenSpec:
        return self.network.spec

    @property
    def window_frames(self) -> int:
        return self.network.config.window_frames

    @property
    def device(self) -> torch.device:
        return self.network.place.device

    def to(self, device: str | torch.device) -> "TokenVideoDecoder":
        self.network.to(device)
        self.tokenizer.to(device)
        return self

    def decode(
        self,
        tokens: Int[Tensor, "clip step gh gw"],
        fps: float | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Float[Tensor, "clip step 3 h w"]:
        """A frame in [-1, 1] for every grid.

        Args:
            fps: grids per second; None: those of the data that it was trained on.
            seeds: of the noise, one per clip; None: `how.seed` and the numbers of the clips.

        Raises:
            BadInput: clips shorter than a window, tokens of another grid or vocabulary, or a rate
                that it was not trained at.
        """
        self._check(tokens)
        config, how = self.network.config, self.how
        noise, rate = self._noise(len(tokens), seeds), self._rate(fps)
        backwards = how.backwards and not config.causal
        if (FORWARD in config.tasks) != (BACKWARD in config.tasks):
            backwards = BACKWARD in config.tasks  # the other was never seen in training
        window = config.window_frames
        order = decoding_order(tokens.shape[1], window, how.overlap, backwards)
        frames = tokens.new_zeros(*tokens.shape[:2], 3, *self.spec.image_size, dtype=torch.float32)
        known = torch.ones_like(tokens, dtype=torch.bool)
        for place in order:
            here = slice(place.start, place.start + window)
            given = torch.zeros(window, dtype=torch.bool, device=tokens.device)
            given[slice(*place.given)] = FORWARD in config.tasks or BACKWARD in config.tasks
            made = self._window(
                tokens[:, here], known[:, here], frames[:, here], given, rate, noise
            )
            kept = place.kept(window, fades=not (bool(given.any()) or config.causal))
            frames[:, here] = torch.lerp(made, frames[:, here], kept.to(made)[:, None, None, None])
        return frames

    def newest(
        self, tokens: Int[Tensor, "clip step gh gw"], seeds: Sequence[int] | None = None
    ) -> Float[Tensor, "clip 3 h w"]:
        """The frame in [-1, 1] of the last grid, of a window that ends with it.

        Before the first grid of a short clip, that grid stands.

        Args:
            seeds: as of `decode`; None: `how.seed` for every clip, for which of them are shown
                changes while they are driven.
        """
        seeds = [self.how.seed] * len(tokens) if seeds is None else seeds
        window = self.network.config.window_frames
        last = tokens[:, -window:]
        before = last[:, :1].expand(-1, window - last.shape[1], -1, -1)
        return self.decode(torch.cat([before, last], dim=1), seeds=seeds)[:, -1]

    def upsample(
        self,
        frames: Float[Tensor, "clip step 3 h w"],
        tokens: Int[Tensor, "clip step gh gw"],
        fps: float | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Float[Tensor, "clip more 3 h w"]:
        """2N - 1 frames of N: those, and one between each two of them.

        Args:
            frames: in [-1, 1].
            tokens: their grids; frames between have none.
            fps: of the result; None: that of the data that it was trained on.

        Raises:
            BadInput: as `decode`, or it was not trained to interpolate.
        """
        if INTERPOLATION not in self.network.config.tasks:
            raise BadInput(
                f"{self.path or 'the video decoder'}: was not trained to interpolate; train one "
                "with interpolation in model.network.tasks"
            )
        self._check(tokens)
        window = self.network.config.window_frames
        noise, rate = self._noise(len(tokens), seeds), self._rate(fps)
        order = upsampling_order(tokens.shape[1], window)
        more = torch.stack([frames, torch.zeros_like(frames)], dim=2).flatten(1, 2)[:, :-1]
        wide = tokens.repeat_interleave(2, dim=1)[:, :-1]
        given = torch.arange(window, device=tokens.device) % 2 == 0
        known = given[None, :, None, None].expand_as(wide[:, :window])
        for place in order:
            here = slice(place.start, place.start + window)
            more[:, here] = self._window(
                wide[:, here], known, more[:, here], given, rate, noise, may_interpolate=True
            )
        return more

    def _window(
        self,
        tokens: Int[Tensor, "clip t gh gw"],
        known: Bool[Tensor, "clip t gh gw"],
        frames: Float[Tensor, "clip t 3 h w"],
        given: Bool[Tensor, " t"],
        rate: int,
        noise: ClipNoise,
        may_interpolate: bool = False,
    ) -> Float[Tensor, "clip t 3 h w"]:
        num = len(tokens)
        task = DecodingTask(
            tokens,
            known,
            given.expand(num, -1),
            torch.ones(num, dtype=torch.bool, device=tokens.device),
            torch.full((num,), rate, device=tokens.device),
            may_interpolate,
        )
        draft = drafted(self.network.config, task, frames, self.tokenizer.decode)
        return self.network.make(task, frames, draft, noise, self.how)

    def _noise(self, num: int, seeds: Sequence[int] | None) -> ClipNoise:
        chosen = [self.how.seed + number for number in range(num)] if seeds is None else seeds
        if len(chosen) != num:
            raise BadInput(f"seeds={list(chosen)}: give one for each of the {num} clips")
        return ClipNoise(chosen, self.device)

    def _rate(self, fps: float | None) -> int:
        """Index of the spacing of frames at a rate."""
        base, spacings = self.spec.fps, list(self.network.config.spacings)
        spacing = base / (fps or base)
        if (fps is not None and fps <= 0) or round(spacing) not in spacings:
            at = ", ".join(f"{base / known:g}" for known in spacings)
            raise BadInput(f"fps={fps:g}: the video decoder was trained at {at}; give one of these")
        if abs(spacing - round(spacing)) > 0.01 * spacing:
            raise BadInput(f"fps={fps:g}: {base:g} is no multiple of it; give another rate")
        return spacings.index(round(spacing))

    def _check(self, tokens: Tensor) -> None:
        grid, size = tuple(self.spec.grid[1:]), self.spec.vocab_size
        if tokens.ndim != 4 or tuple(tokens.shape[-2:]) != grid or not tokens.numel():
            raise BadInput(
                f"tokens are {tuple(tokens.shape)}, the video decoder's are [clip step {grid[0]} "
                f"{grid[1]}]; give tokens of its tokenizer"
            )
        low, high = (int(x) for x in tokens.aminmax())
        if low < 0 or high >= size:
            raise BadInput(
                f"tokens are in {low}..{high}, the video decoder's in 0..{size - 1}; give tokens "
                "of its tokenizer"
            )
