"""Motion by block matching, and what of a video does not follow it."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

BLOCK = 7  # pixels on a side of what is compared around each pixel
LEVELS_PER_UNIT = 127.5  # 8-bit levels of pixels in [-1, 1]


def motion(
    frames: Float[Tensor, "time 3 h w"], reach: int = 6
) -> tuple[Int[Tensor, "pair 2 h w"], Float[Tensor, "pair h w"]]:
    """Where each pixel of a frame comes from in the frame before it, in whole pixels.

    Every displacement up to `reach` is tried; the one whose block differs least is taken, the
    shorter one where two are equal.

    Returns:
        rows and columns to add to a pixel's place, and the mean absolute difference of the best
        block in 8-bit levels.
    """
    before, after = frames[:-1], frames[1:]
    steps = range(-reach, reach + 1)
    moves = sorted(((y, x) for y in steps for x in steps), key=lambda m: m[0] ** 2 + m[1] ** 2)
    padded = F.pad(before, [reach] * 4, mode="replicate")
    height, width = frames.shape[-2:]
    best = before.new_full((len(before), height, width), float("inf"))
    chosen = torch.zeros_like(best, dtype=torch.long)
    for number, (y, x) in enumerate(moves):
        moved = padded[..., reach + y : reach + y + height, reach + x : reach + x + width]
        error = (after - moved).abs().mean(1, keepdim=True)
        padding = BLOCK // 2
        block = F.avg_pool2d(error, BLOCK, 1, padding, count_include_pad=False)[:, 0]
        better = block < best - 1e-6
        best = torch.where(better, block, best)
        chosen = torch.where(better, number, chosen)
    table = torch.tensor(moves, device=frames.device)
    return table[chosen].movedim(-1, 1), best * LEVELS_PER_UNIT


def warp_error(
    frames: Float[Tensor, "time 3 h w"],
    flow: Int[Tensor, "pair 2 h w"],
    follows: Bool[Tensor, "pair h w"],
) -> Float[Tensor, ""]:
    """Mean absolute difference to the frame before, moved along the flow, in 8-bit levels.

    Args:
        flow: of the recorded frames (`motion`).
        follows: pixels to compare: those whose recorded ones follow the flow; others appear or
            vanish.

    Source: Lai et al. 2018, arXiv 1808.00449, section 4.3, with flow in whole pixels.
    """
    height, width = frames.shape[-2:]
    rows = torch.arange(height, device=frames.device)[:, None] + flow[:, 0]
    columns = torch.arange(width, device=frames.device) + flow[:, 1]
    place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    before = frames[:-1].flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, 3, -1))
    error = (frames[1:] - before.view_as(frames[1:])).abs().mean(1)
    return error[follows].mean() * LEVELS_PER_UNIT
