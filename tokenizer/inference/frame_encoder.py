"""Fast encoding of frames, and the share of tokens that it changes."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from drives.clips.frame_stream import Fit
from drives.clips.preprocessing import to_pixels
from drives.drive import Drive
from tokenizer.inference.config import AS_TRAINED, InferenceConfig
from tokenizer.inference.fast import for_inference
from tokenizer.load import Tokenizer
from training.loading.spread import spread

SWITCHES = ("channels_last", "winograd", "frames_at_once", "compile")


def name_of(config: InferenceConfig) -> str:
    """The active settings that affect encoding, such as "bfloat16 channels_last compile"."""
    return " ".join([config.dtype, *(key for key in SWITCHES if getattr(config, key))])


class FrameEncoder:
    """Encodes uint8 frames of the tokenizer's size; the given tokenizer is unchanged.

    Raises:
        BadInput: a setting that the tokenizer does not support (see `for_inference`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        device: str | torch.device,
        config: InferenceConfig = AS_TRAINED,
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.tokenizer = for_inference(tokenizer, config).to(self.device)
        self.full_size = 0

    def drive(self) -> Callable[[UInt8[Tensor, "n 3 h w"]], Int[Tensor, "steps gh gw"] | None]:
        """An encoder of one drive's consecutive batches; stateful for video tokenizers.

        It returns tokens on the device, or None where a batch completes no step.
        """
        # Not Tokenizer.encode: it checks the range of values, which waits for the GPU.
        return partial(self._encode, self.tokenizer.network.drive_encoder())

    def __call__(self, frames: UInt8[Tensor, "n 3 h w"]) -> Int[Tensor, "steps gh gw"]:
        """Tokens of frames as one drive, on the device."""
        tokens = self.drive()(frames)
        assert tokens is not None, "the first frame is a step"
        return tokens

    @torch.no_grad()
    def _encode(self, encode: Any, frames: UInt8[Tensor, "n 3 h w"]) -> Any:
        count = len(frames)
        if self.config.compile:  # a smaller last batch would be compiled again
            self.full_size = max(self.full_size, count)
            frames = torch.cat([frames, frames[-1:].expand(self.full_size - count, -1, -1, -1)])
        pixels = to_pixels(frames.to(self.device, non_blocking=True))
        pixels = self.tokenizer.preprocessing.to_network(pixels)
        if self.config.channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self._exact():
            tokens = encode(pixels)
        return tokens[:count] if self.config.compile else tokens

    def _exact(self) -> Any:
        """Full float32: on GPUs, cuDNN's convolutions otherwise run in TF32."""
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def sample_clips(
    drives: Sequence[Drive], fit: Fit, count: int, clip_frames: int, every: int = 1
) -> list[UInt8[Tensor, "n 3 h w"]]:
    """About `count` frames in clips, evenly spread over at most 16 evenly spread drives.

    Args:
        clip_frames: frames per clip, every `every`-th frame; fewer in a shorter drive.
    """
    chosen = spread(len(drives), 16)
    each = -(-count // (len(chosen) * clip_frames))
    span = (clip_frames - 1) * every
    clips = []
    for drive in (drives[i] for i in chosen):
        last = max(0, len(drive.actions) - 1 - span)
        for start in np.unique(np.linspace(0, last, each).astype(int)).tolist():
            seen = drive.frames(start, min(start + span + 1, len(drive.actions)))
            clips.append(fit(np.stack(list(islice(seen, 0, None, every)))))
    return clips[: -(-count // clip_frames)]


def changed_share(
    tokenizer: Tokenizer, fast: FrameEncoder, clips: Iterable[UInt8[Tensor, "n 3 h w"]]
) -> dict[str, float]:
    """Share of tokens of the clips that differ from plain float32 on the same device.

    A video tokenizer encodes each clip as one drive; for image tokenizers any batches will do.
    """
    exact = FrameEncoder(tokenizer, fast.device)
    changed = total = 0
    for clip in clips:
        differs = fast(clip) != exact(clip)
        changed, total = changed + int(differs.sum()), total + differs.numel()
    return {"changed_token_share": changed / total, "num_tokens_compared": total}


def joined(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Merge two results of `changed_share` into that of all their frames."""
    share, num = "changed_token_share", "num_tokens_compared"
    changed = sum(round(each[share] * each[num]) for each in (one, other))
    total = one[num] + other[num]
    return {share: changed / total, num: total}
