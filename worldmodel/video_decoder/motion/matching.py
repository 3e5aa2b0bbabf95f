"""Motion by block matching, and what of a video does not follow it."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

BLOCK = 7  # pixels on a side of what is compared around each pixel
LEVELS_PER_UNIT = 127.5  # 8-bit levels of pixels in [-1, 1]
FAR = 0.0005  # per pixel of a move between drafts: of two that fit alike, the shorter one is taken
FAR_HALVED = 0.002  # the same, and per pixel of a correction, where motion is searched in halves

Flow = Int[Tensor, "n 2 h w"]
Cost = Callable[[int, int], Float[Tensor, "n h w"]]


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
    at = shifts(before, reach)
    flow, error = best_moves(lambda y, x: (after - at(y, x)).abs().mean(1), reach)
    return flow, error * LEVELS_PER_UNIT


def moved_onto(
    source: Float[Tensor, "n 3 h w"], onto: Float[Tensor, "n 3 h w"], reach: int, halvings: int = 0
) -> Float[Tensor, "n 3 h w"]:
    """Each frame of `source`, moved along its motion to the frame of `onto`, by their grey."""
    flow = searched(source.mean(1), onto.mean(1), reach, halvings, opposite=0)
    return moved(source, flow)


def met_between(
    first: Float[Tensor, "n 3 h w"], second: Float[Tensor, "n 3 h w"], reach: int, halvings: int = 0
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]]:
    """Both frames, each moved to the middle of their motion, of which each goes half.

    Source: bilateral motion estimation (Choi et al. 2000, IEEE Trans. CE 46 (3), 603-609).
    """
    flow = searched(first.mean(1), second.mean(1), reach, halvings, opposite=-1)
    return moved(first, flow), moved(second, -flow)


def searched(
    first: Float[Tensor, "n h w"],
    second: Float[Tensor, "n h w"],
    reach: int,
    halvings: int,
    opposite: int,
    far: float | None = None,
) -> Flow:
    """The moves of `first`, in whole pixels, after which it fits `second` best.

    Args:
        reach: every move up to so many pixels is tried, at the smallest size.
        halvings: how often the frames are halved for that. At each larger size, twice the motion
            found is corrected by up to a pixel, and moves unlike those beside them are replaced.
            The longest move is (reach + 1) * 2**halvings - 1.
        opposite: moves of `second` are so many times those of `first`: 0 or -1.
        far: added to the cost per pixel of a move; None: `FAR` or `FAR_HALVED`.
    """
    far = far or (FAR_HALVED if halvings else FAR)
    if not halvings:
        return _corrected(first, second, reach, far, opposite)
    halves = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
    coarse = alike(searched(*halves, reach, halvings - 1, opposite, 2 * far))
    flow = 2 * coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    begin, end = _moved_grey(first, flow), _moved_grey(second, opposite * flow)
    return alike(flow + _corrected(begin, end, 1, far, opposite))


def _corrected(
    first: Float[Tensor, "n h w"],
    second: Float[Tensor, "n h w"],
    reach: int,
    far: float,
    opposite: int,
) -> Flow:
    begin, end = shifts(first, reach), shifts(second, reach)

    def cost(y: int, x: int) -> Tensor:
        return (begin(y, x) - end(opposite * y, opposite * x)).abs()

    return best_moves(cost, reach, far)[0]


def alike(flow: Flow) -> Flow:
    """Rows and columns of each move, the median of three beside and then of three below another."""
    for axis in (2, 3):
        ends = [flow.narrow(axis, 0, 1), flow, flow.narrow(axis, flow.shape[axis] - 1, 1)]
        a, b, c = torch.cat(ends, axis).unfold(axis, 3, 1).unbind(-1)
        flow = torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
    return flow


def _moved_grey(frames: Float[Tensor, "n h w"], flow: Flow) -> Float[Tensor, "n h w"]:
    return moved(frames[:, None], flow)[:, 0]


def shifts(frames: Float[Tensor, "n *c h w"], reach: int) -> Callable[[int, int], Tensor]:
    """Frames whose pixel at a place is the one y rows and x columns from there."""
    height, width = frames.shape[-2:]
    channels = frames.flatten(1, -3) if frames.ndim > 3 else frames[:, None]
    padded = F.pad(channels, [reach] * 4, mode="replicate").view(
        *frames.shape[:-2], height + 2 * reach, width + 2 * reach
    )

    def at(y: int, x: int) -> Tensor:
        return padded[..., reach + y : reach + y + height, reach + x : reach + x + width]

    return at


def best_moves(cost: Cost, reach: int, far: float = 0.0) -> tuple[Flow, Float[Tensor, "n h w"]]:
    """The move up to `reach` with the lowest mean cost of the block around each pixel, and that.

    Args:
        far: added to it per pixel of the move's length.
    """
    steps = range(-reach, reach + 1)
    moves = sorted(((y, x) for y in steps for x in steps), key=lambda m: m[0] ** 2 + m[1] ** 2)
    best, chosen = torch.empty(0), torch.empty(0)
    for number, (y, x) in enumerate(moves):
        block = block_mean(cost(y, x)) + far * (y**2 + x**2) ** 0.5
        if not number:
            best, chosen = block, torch.zeros_like(block, dtype=torch.long)
            continue
        better = block < best - 1e-6
        best = torch.where(better, block, best)
        chosen.masked_fill_(better, number)
    return torch.tensor(moves, device=best.device)[chosen].movedim(-1, 1), best


def block_mean(values: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Mean of the block around each pixel, without what lies outside of the frame.

    Sums of shifted copies: on a CPU a fifth of the time of `avg_pool2d`.
    """
    inside = torch.ones_like(values[:1])
    return _block_sum(values) / _block_sum(inside)


def _block_sum(values: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    height, width = values.shape[-2:]
    tall = F.pad(values, (0, 0, BLOCK // 2, BLOCK // 2))
    rows = sum((tall[:, i : i + height] for i in range(1, BLOCK)), tall[:, :height])
    wide = F.pad(rows, (BLOCK // 2, BLOCK // 2))
    return sum((wide[..., i : i + width] for i in range(1, BLOCK)), wide[..., :width])


def moved(frames: Float[Tensor, "n c h w"], flow: Flow) -> Float[Tensor, "n c h w"]:
    """Frames whose pixel at a place is the one that `flow` names, rows and columns from there."""
    height, width = frames.shape[-2:]
    rows = torch.arange(height, device=frames.device)[:, None] + flow[:, 0]
    columns = torch.arange(width, device=frames.device) + flow[:, 1]
    place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    found = frames.flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, frames.shape[1], -1))
    return found.view_as(frames)


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
    error = (frames[1:] - moved(frames[:-1], flow)).abs().mean(1)
    return error[follows].mean() * LEVELS_PER_UNIT
