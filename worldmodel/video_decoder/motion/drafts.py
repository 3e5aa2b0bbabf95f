"""First guesses of frames: the tokenizer's own, and those of neighbours, moved along the motion."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.video_decoder.motion.matching import met_between, moved_onto
from worldmodel.video_decoder.networks.config import VideoDecoderConfig
from worldmodel.video_decoder.tasks import DecodingTask

Frames = Float[Tensor, "b t 3 h w"]


@dataclass(frozen=True)
class FirstGuess:
    """A first guess of frames.

    Attributes:
        frames: 0 where there is none.
        is_there: pixels that have one.
        neighbours: guesses by the frame before and, unless the decoder is causal, the one after;
            none where the network reads none.
    """

    frames: Frames
    is_there: Bool[Tensor, "b t 1 h w"]
    neighbours: tuple[Frames, ...] = ()

    def planes(self, is_video: Bool[Tensor, " b"] | None) -> list[Frames]:
        """What the network reads; of frames that are decoded alone, nothing of neighbours."""
        if is_video is None:
            return [self.frames] * (1 + len(self.neighbours))
        reads = is_video[:, None, None, None, None]
        return [self.frames, *(torch.where(reads, one, self.frames) for one in self.neighbours)]


def drafted(
    config: VideoDecoderConfig,
    task: DecodingTask,
    given: Frames,
    decode: Callable[[Tensor], Tensor],
) -> FirstGuess | None:
    """The draft that a network reads; None where it reads none.

    Args:
        given: frames, read where they are given.
        decode: tokens to the tokenizer's own frames.
    """
    if not config.draft:
        return None
    met = _met(given, config) if config.reach and task.may_interpolate else None
    draft = draft_of(task, given, decode(task.tokens), met)
    if not config.reach:
        return draft
    neighbours = _from_neighbours(task, given, draft, config, met)
    return replace(draft, neighbours=neighbours)


def draft_of(
    task: DecodingTask, given: Frames, own: Frames, met: tuple[Frames, Frames] | None = None
) -> FirstGuess:
    """The tokenizer's own frames; between two given frames without tokens, the mean of the two.

    Args:
        given: frames, read where they are given.
        own: the tokenizer's frames of all tokens; what a dropped token shows is left out.
        met: the two, moved to where their motion meets, of every second frame.
    """
    high, wide = (n // m for n, m in zip(own.shape[-2:], task.tokens.shape[-2:], strict=True))
    seen = task.has_token.repeat_interleave(high, dim=2).repeat_interleave(wide, dim=3)[:, :, None]
    between = between_given(task)
    mean = (given.roll(1, 1) + given.roll(-1, 1)) / 2
    if met is not None:
        mean[:, 1:-1:2] = (met[0] + met[1]) / 2
    return FirstGuess(torch.where(between, mean, own * seen), seen | between)


def between_given(task: DecodingTask) -> Bool[Tensor, "b t 1 1 1"]:
    """Frames without tokens whose two neighbours are given."""
    without = ~task.has_token.flatten(2).any(2)
    inner = torch.zeros_like(without)
    inner[:, 1:-1] = without[:, 1:-1] & task.is_given[:, :-2] & task.is_given[:, 2:]
    return inner[:, :, None, None, None]


def _met(frames: Frames, config: VideoDecoderConfig) -> tuple[Frames, Frames]:
    """For every second frame of a window, its two neighbours moved to where their motion meets."""
    first, second = frames[:, :-2:2], frames[:, 2::2]
    how = (config.reach, config.halvings)
    pair = met_between(first.flatten(0, 1), second.flatten(0, 1), *how)
    begin, end = (one.unflatten(0, first.shape[:2]) for one in pair)
    return begin, end


def _from_neighbours(
    task: DecodingTask,
    given: Frames,
    draft: FirstGuess,
    config: VideoDecoderConfig,
    met: tuple[Frames, Frames] | None,
) -> tuple[Frames, ...]:
    """The frames before and after, moved onto each; at the ends of a window the frame itself.

    Frames between two given ones have no tokens to be moved onto: there the two are moved to where
    their motion meets.
    """
    base = torch.where(task.is_given[:, :, None, None, None], given, draft.frames)
    size, how = (base.shape[0], base.shape[1] - 1), (config.reach, config.halvings)
    left, right = base[:, :-1].flatten(0, 1), base[:, 1:].flatten(0, 1)
    moved = moved_onto(left, right, *how).unflatten(0, size)
    before = torch.cat([base[:, :1], moved], dim=1)
    if config.causal:
        return (before,)
    after = torch.cat([moved_onto(right, left, *how).unflatten(0, size), base[:, -1:]], dim=1)
    if met is not None:
        between = between_given(task)[:, 1:-1:2]
        for whole, inner in zip((before, after), met, strict=True):
            whole[:, 1:-1:2] = torch.where(between, inner, whole[:, 1:-1:2])
    return before, after
