"""What a window is given and asked for: tasks, dropped tokens, the spacing of its frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from worldmodel.video_decoder.networks.config import BACKWARD, FORWARD, IMAGE, INTERPOLATION, TASKS


@dataclass(frozen=True)
class DecodingTask:
    """What the frames of some windows are decoded from.

    Attributes:
        tokens: a grid per frame; what lies where there is none is not read.
        has_token: which tokens are there.
        is_given: which frames are given, and stay as they are.
        is_video: whether frames read each other.
        rate: index of the window's spacing in the network's `spacings`.
        may_interpolate: whether frames may lie between given ones without tokens.
    """

    tokens: Int[Tensor, "b t gh gw"]
    has_token: Bool[Tensor, "b t gh gw"]
    is_given: Bool[Tensor, "b t"]
    is_video: Bool[Tensor, " b"]
    rate: Int[Tensor, " b"]
    may_interpolate: bool = False

    def as_images(self) -> "DecodingTask":
        """The same, every frame alone."""
        return replace(self, is_video=torch.zeros_like(self.is_video))


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

    Of forward and backward, 1 to all but one of the window's frames are given: the last window of
    a drive shares more frames with the one before it than others do.
    """
    num, steps = tokens.shape[:2]
    options: dict[str, Any] = {"device": tokens.device, "generator": generator}
    kinds = torch.tensor([TASKS.index(task) for task in tasks], device=tokens.device)
    kind = kinds[torch.randint(len(kinds), (num,), **options)][:, None]
    count = torch.randint(1, steps, (num, 1), **options)
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
        INTERPOLATION in tasks,
    )


def neighbours(
    frames: Float[Tensor, "b t 3 h w"], is_given: Bool[Tensor, "b t"], count: int
) -> Float[Tensor, "n c h w"]:
    """Every `count` frames in a row of which one is asked for, as channels.

    How many there are is known to the host: it waits for the device once.
    """
    rows = rearrange(frames.unfold(1, count, 1), "b s c h w k -> b s (k c) h w")
    return rows[(~is_given).unfold(1, count, 1).any(2)]
