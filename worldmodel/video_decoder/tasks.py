"""What a window is given and asked for: tasks, dropped tokens, the spacing of its frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from worldmodel.video_decoder.config import BACKWARD, FORWARD, IMAGE, INTERPOLATION, TASKS


@dataclass(frozen=True)
class DecodingTask:
    """What the frames of some windows are decoded from.

    Attributes:
        tokens: a grid per frame; what lies where there is none is not read.
        has_token: which tokens are there.
        is_given: which frames are given, and stay as they are.
        is_video: whether frames read each other.
        rate: index of the window's spacing in the network's `spacings`.
    """

    tokens: Int[Tensor, "b t gh gw"]
    has_token: Bool[Tensor, "b t gh gw"]
    is_given: Bool[Tensor, "b t"]
    is_video: Bool[Tensor, " b"]
    rate: Int[Tensor, " b"]

    def as_images(self) -> "DecodingTask":
        """The same, every frame alone."""
        return replace(self, is_video=torch.zeros_like(self.is_video))


@dataclass(frozen=True)
class FirstGuess:
    """A first guess of frames.

    Attributes:
        frames: 0 where there is none.
        is_there: pixels that have one.
    """

    frames: Float[Tensor, "b t 3 h w"]
    is_there: Bool[Tensor, "b t 1 h w"]


def draft_of(
    task: DecodingTask, given: Float[Tensor, "b t 3 h w"], own: Float[Tensor, "b t 3 h w"]
) -> FirstGuess:
    """The tokenizer's own frames; between two given frames without tokens, the mean of the two.

    Args:
        given: frames, read where they are given.
        own: the tokenizer's frames of all tokens; what a dropped token shows is left out.
    """
    high, wide = (n // m for n, m in zip(own.shape[-2:], task.tokens.shape[-2:], strict=True))
    seen = task.has_token.repeat_interleave(high, dim=2).repeat_interleave(wide, dim=3)[:, :, None]
    without = ~task.has_token.flatten(2).any(2)
    inner = torch.zeros_like(without)
    inner[:, 1:-1] = without[:, 1:-1] & task.is_given[:, :-2] & task.is_given[:, 2:]
    between = inner[:, :, None, None, None]
    mean = (given.roll(1, 1) + given.roll(-1, 1)) / 2
    return FirstGuess(torch.where(between, mean, own * seen), seen | between)


def draw_spacings(
    frames: UInt8[Tensor, "b span 3 h w"],
    window_frames: int,
    spacings: Sequence[int],
    generator: torch.Generator | None = None,
) -> tuple[UInt8[Tensor, "b t 3 h w"], Int[Tensor, " b"]]:
    """A window of each clip, its spacing and place drawn evenly; returns the spacing's index."""
    num, span = frames.shape[:2]
    device = frames.device
    rate = torch.randint(len(spacings), (num,), device=device, generator=generator)
    spacing = torch.tensor(list(spacings), device=device)[rate]
    free = span - (window_frames - 1) * spacing  # places where the window may begin
    start = (torch.rand(num, device=device, generator=generator) * free).long()
    index = start[:, None] + spacing[:, None] * torch.arange(window_frames, device=device)
    return frames[torch.arange(num, device=device)[:, None], index], rate


def draw_tasks(
    tokens: Int[Tensor, "b t gh gw"],
    rate: Int[Tensor, " b"],
    tasks: Sequence[str],
    token_dropout: float,
    generator: torch.Generator | None = None,
) -> DecodingTask:
    """A task per example, each as often; nothing waits for the device.

    Of forward and backward, 1 to half of the window's frames are given.
    """
    num, steps = tokens.shape[:2]
    options: dict[str, Any] = {"device": tokens.device, "generator": generator}
    kinds = torch.tensor([TASKS.index(task) for task in tasks], device=tokens.device)
    kind = kinds[torch.randint(len(kinds), (num,), **options)][:, None]
    count = torch.randint(1, steps // 2 + 1, (num, 1), **options)
    at = torch.arange(steps, device=tokens.device)[None]
    first = (kind == TASKS.index(FORWARD)) & (at < count)
    last = (kind == TASKS.index(BACKWARD)) & (at >= steps - count)
    between = (kind == TASKS.index(INTERPOLATION)) & (at % 2 == 1)
    ends = (kind == TASKS.index(INTERPOLATION)) & (at % 2 == 0)
    kept = torch.rand(tokens.shape, **options) >= token_dropout
    return DecodingTask(
        tokens,
        kept & ~between[:, :, None, None],
        first | last | ends,
        kind[:, 0] != TASKS.index(IMAGE),
        rate,
    )
