"""Streams a drive through a video tokenizer in batches of any size, as one clip."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenizer.networks.video.causal_conv import PastFrames


class EncodeStream:
    """Encodes one drive's consecutive frames, as soon as a step is complete.

    The first frame gives the first token grid; every further `frames_per_step` frames give the
    next. Frames at the end that do not fill a step give none.
    """

    def __init__(
        self, encode: Callable[[Tensor, PastFrames], Tensor], frames_per_step: int
    ) -> None:
        self.encode, self.frames_per_step, self.past = encode, frames_per_step, PastFrames()
        self.waiting: Tensor | None = None

    def __call__(self, batch: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "steps gh gw"] | None:
        """Tokens of the steps completed by the batch; None where there is none."""
        factor = self.frames_per_step
        frames = batch if self.waiting is None else torch.cat([self.waiting, batch])
        first = 0 if self.past.begun else 1
        usable = (len(frames) - first) // factor * factor + first
        self.waiting = frames[max(0, usable) :]
        return self.encode(frames[:usable], self.past) if usable > 0 else None


class DecodeStream:
    """Decodes one drive's consecutive token grids to frames in [-1, 1]: one, then several each."""

    def __init__(self, decode: Callable[[Tensor, PastFrames], Tensor]) -> None:
        self.decode, self.past = decode, PastFrames()

    def __call__(self, tokens: Int[Tensor, "steps gh gw"]) -> Float[Tensor, "n 3 h w"]:
        return self.decode(tokens, self.past)

    def fork(self) -> "DecodeStream":
        """A copy that continues from here; the two are independent."""
        other = DecodeStream(self.decode)
        other.past.update(self.past)  # tensors are replaced, never changed in place
        other.past.begun = self.past.begun
        return other
