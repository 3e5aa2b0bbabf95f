"""Trains heads on the columns of the drives, and judges them on drives that were held out."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from drives.actions.units import REWARD
from drives.tokens.drive import TokenDrive
from drives.tokens.store import TokenStore
from training.errors import BadInput
from worldmodel.evaluation.intervals import Estimate, bootstrap
from worldmodel.evaluation.values.rewards import RewardHead, fit_rewards, rewarded
from worldmodel.heads.composed import ComposedHead, fit_composed
from worldmodel.heads.config import HeadsSettings
from worldmodel.heads.heads import FrameHeads, composed_inputs

SUM_S = 2.0  # a reward comes in pieces: its sum over this time says more than one step
RESAMPLES = 200
CHUNK = 1024
Column = Float[np.ndarray, " frame"]


def train_heads(store: TokenStore, settings: HeadsSettings, device: str) -> FrameHeads:
    """A head for every column.

    Raises:
        BadInput: the store lacks a column, or it never changes.
    """
    places = {name: _place(store, name, settings) for name in settings.columns}
    if settings.with_actions and not store.action_names:
        raise BadInput(f"with_actions={list(settings.with_actions)}: {store.root} has no actions")
    drives = usable(store, "train", settings.num_frames)

    def examples(name: str) -> tuple[Tensor, Tensor, Tensor]:
        span = max(1, round(settings.smooth_s / store.spec.step_s)) if name == REWARD else 1
        given = (places[name], grid_of(store), settings.num_frames, span)
        parts = [_examples(drive, *given) for drive in drives]
        stacks, values, rows = (torch.cat(side).to(device) for side in zip(*parts, strict=True))
        return stacks, values, rows

    found: dict[str, RewardHead | ComposedHead] = {}
    for name in sorted(settings.columns, key=lambda name: name in settings.with_actions):
        stacks, values, rows = examples(name)
        if not values.std() > 0:
            raise BadInput(f"columns: {name} never changes in {store.root}; leave it out")
        if name not in settings.with_actions:
            given = (store.spec, settings.steps, settings.seed, settings.convolutions)
            found[name] = fit_rewards(stacks, values, *given)
            continue
        others = {n: h for n, h in found.items() if isinstance(h, RewardHead)}
        reading = FrameHeads(others, settings.num_frames, store.spec)
        parts = zip(stacks.split(CHUNK), rows.split(CHUNK), strict=True)
        inputs = torch.cat([composed_inputs(reading.of_stacks(s), r) for s, r in parts]).clone()
        found[name] = fit_composed(inputs, values, settings.steps, settings.seed)
    ordered = {name: found[name] for name in settings.columns}
    told = tuple(store.action_names), tuple(settings.convolutions)
    return FrameHeads(ordered, settings.num_frames, store.spec, *told)


def scores_of(
    heads: FrameHeads, store: TokenStore, split: str, device: str
) -> dict[str, dict[str, Estimate]]:
    """Of every head on the drives of a split, by measure, with intervals over drives.

    r2: 1 less the squared error over that of the mean. r2_sum: the same of sums over `SUM_S`.
    auc: of shares and of zeros and ones: the chance that a frame above the middle is ranked before
    one below.
    """
    span, found = max(1, round(SUM_S / store.spec.step_s)), {}
    drives = usable(store, split, heads.num_frames)
    for name in heads.names:
        pairs = {}
        for drive in drives:
            place = store.columns.index(name)
            stacks, values, rows = _examples(drive, place, grid_of(store), heads.num_frames)
            read = heads.of_stacks(stacks.to(device), rows.to(device))[name]
            pairs[drive.id] = read.cpu().numpy(), values.numpy()
        sums = {key: (_sums(read, span), _sums(real, span)) for key, (read, real) in pairs.items()}
        scores = {"r2": _estimate(_r2, pairs), "r2_sum": _estimate(_r2, sums)}
        real = np.concatenate([own for _, own in pairs.values()])
        if real.min() == 0 and real.max() == 1:
            scores["auc"] = _estimate(_auc, pairs)
        found[name] = scores
    return found


def grid_of(store: TokenStore) -> tuple[int, int]:
    """Rows and columns of tokens of a time step."""
    count, rows, columns = store.spec.grid
    return count * rows, columns


def usable(store: TokenStore, split: str, num_frames: int) -> list[TokenDrive]:
    """Whole drives of a split that are longer than a stack; BadInput where there are none."""
    found = [d for d in store.drives(split) if not d.damage and d.num_steps > num_frames]
    if not found:
        raise BadInput(
            f"heads: no whole {split} drive of {store.root} has over {num_frames} time steps; give "
            "data.root=STORE with longer ones, or a smaller num_frames"
        )
    return found


def _examples(
    drive: TokenDrive, place: int, grid: tuple[int, int], num_frames: int, span: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Stacks of frames, a column of the rows that led to them, and the actions of these rows.

    Args:
        place: of the column in the store.
        span: the column's mean is taken over as many steps around each.
    """
    stacks, values = rewarded([drive], place, grid, num_frames, span, every=1)
    rows = torch.from_numpy(np.array(drive.actions[-1 - len(values) : -1], np.float32))
    return stacks, values, rows


def _place(store: TokenStore, name: str, settings: HeadsSettings) -> int:
    if name not in store.columns:
        raise BadInput(
            f"columns={list(settings.columns)}: {store.root} has no column {name!r}, but "
            f"{', '.join(store.columns)}; the embedded drives have rewards and the road by "
            "data=drives data.source.carracing.rewards=true data.source.carracing.off_road=true"
        )
    return store.columns.index(name)


def _sums(values: Column, span: int) -> Column:
    """Of every whole span of steps."""
    num = len(values) // span
    sums: Column = values[: num * span].reshape(num, span).sum(1)
    return sums


def _estimate(
    measure: Callable[[Column, Column], float], pairs: dict[str, tuple[Column, Column]]
) -> Estimate:
    read, real = (np.concatenate(side) for side in zip(*pairs.values(), strict=True))
    drives = [name for name, (one, _) in pairs.items() for _ in one]
    return bootstrap(lambda at: measure(read[at], real[at]), drives, RESAMPLES)


def _r2(read: Column, real: Column) -> float:
    spread = float(((real - real.mean()) ** 2).sum())
    return 1 - float(((read - real) ** 2).sum()) / spread if spread > 0 else float("nan")


def _auc(read: Column, real: Column) -> float:
    """Mann and Whitney's U as a share; NaN where one kind is missing."""
    above = real > 0.5
    num = int(above.sum())
    if not 0 < num < len(real):
        return float("nan")
    ranks = float(rankdata(read)[above].sum())
    return (ranks - num * (num + 1) / 2) / (num * (len(real) - num))
