"""How many bits of the next frame the actions can tell, asked from the side of the actions.

    I(frame; action | past) = H(action | past) - H(action | past, frame)

Frames have hundreds of bits and actions a few: the difference of two cross entropies of frames
drowns in their errors, that of actions does not. Both sides of the equation are equal. "Past" are
frames and rows. Pairs of probes (`probe`) predict which typical action (`mixture.Centres`) led to a
frame, without that frame and with it. The difference of their cross entropies on held-out drives
is a lower bound in expectation, as long as the second is not nearer to its entropy than the first:
finer actions hold more, and a better probe finds more in the frame. The first cross entropy bounds
from above what a row can tell. The difference is 0 where a probe is worse for the frame. On the
known-entropy world it is H0 - H1 (`worldmodel.known_entropy.world`).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from drives.splits.base import while_training
from drives.tokens.store import TokenStore
from training.disk.leftovers import written_whole
from training.errors import BadInput
from worldmodel.evaluation.attainable.config import ProbeConfig
from worldmodel.evaluation.attainable.mixture import SAMPLE, Centres, centres_of
from worldmodel.evaluation.attainable.probe import bits_of, train_probe
from worldmodel.evaluation.attainable.windows import HorizonWindows, situations, statistics
from worldmodel.evaluation.intervals import Estimate, mean_over_drives

Bits = Float[np.ndarray, " window"]
PROBES = "probes"  # folder of finished probes' bits
FORM = 3  # of what is kept of a probe


@dataclass(frozen=True)
class Attainable:
    """One answer.

    Attributes:
        bits_per_frame: what the actions tell of a frame, with an interval over drives.
        before, after: bits of the row that led to the frame, before and after it is seen.
        by_seed: the estimate of every pair of probes.
        by_situation: the estimate within each situation that the columns tell.
        by_drive: mean and number of windows of each drive.
    """

    horizon: int
    lag: int
    bits_per_frame: Estimate
    before: Estimate
    after: Estimate
    by_seed: tuple[float, ...]
    by_situation: dict[str, Estimate]
    by_drive: dict[str, tuple[float, int]] = field(default_factory=dict)


class Probing:
    """The windows of a store, and the bits of probes on them; finished probes are kept.

    Args:
        out: folder that keeps the bits of finished probes; a second call goes on from there.

    Raises:
        BadInput: the store has no actions, or drives that are too short.
    """

    def __init__(self, store: TokenStore, config: ProbeConfig, out: Path, device: str) -> None:
        if not store.action_names:
            raise BadInput(f"{store.root}: has no actions; nothing can be told by them")
        self.store, self.config, self.out, self.device = store, config, out, device
        self.train = store.drives("train")
        self.test = while_training(store.all, "test", str(store.root))
        self.chosen_by = while_training(store.all, "val", str(store.root))
        self.mean, self.scale = statistics(self.train)
        self.key = f"{store.hash}{store.spec.tokenizer}"

    def estimates(self, wanted: Sequence[tuple[int, int]] | None = None) -> list[Attainable]:
        """The answers for all (horizon, lag), those of the config by default."""
        wanted = self.config.asked if wanted is None else wanted
        horizons = {horizon for horizon, _ in wanted}
        num = 2 * len(wanted) * self.config.seeds
        for horizon in horizons:  # refused before the first step
            for drives in (self.train, self.test, self.chosen_by):
                self._windows(drives, horizon, 0)
        with tqdm(total=num * self.config.steps, desc="probes", unit="step") as bar:
            return [self._estimate(horizon, lag, bar) for horizon, lag in wanted]

    def _windows(self, drives: Sequence[Any], horizon: int, lag: int) -> HorizonWindows:
        return HorizonWindows(drives, self.config.context, horizon, lag, self.mean, self.scale)

    def _judged(self, horizon: int, lag: int) -> tuple[HorizonWindows, list[int]]:
        windows = self._windows(self.test, horizon, lag)
        return windows, windows.spread(self.config.num_windows, *self._halves(0))

    def _halves(self, half: int) -> tuple[int, int]:
        """Where val stands in for test or the reverse, each of them gets every second window."""
        return (half, 2) if self.chosen_by == self.test else (0, 1)

    def _estimate(self, horizon: int, lag: int, bar: Any) -> Attainable:
        pairs = [self._pair(horizon, lag, seed, bar) for seed in range(self.config.seeds)]
        before, after = (np.mean([pair[i] for pair in pairs], 0) for i in (0, 1))
        told = before - after
        windows, ids = self._judged(horizon, 0)
        drives = [windows.place(index)[0].id for index in ids]
        by_drive = {d: told[[other == d for other in drives]] for d in sorted(set(drives))}
        rows, rate = windows.led_by(ids), 1 / self.store.spec.step_s
        there = situations(self.store.action_names, rows, self.scale, rate)
        return Attainable(
            horizon,
            lag,
            mean_over_drives(told, drives),
            mean_over_drives(before, drives),
            mean_over_drives(after, drives),
            tuple(float(np.mean(a - b)) for a, b in pairs),
            {
                name: mean_over_drives(told[fits], np.asarray(drives)[fits].tolist())
                for name, fits in there.items()
                if fits.any()
            },
            {name: (float(bits.mean()), len(bits)) for name, bits in by_drive.items()},
        )

    def _pair(self, horizon: int, lag: int, seed: int, bar: Any) -> tuple[Bits, Bits]:
        """Bits of the rows of the test windows, before and after their frame is seen."""
        before, after = (self._bits(horizon, lag, seed, sees, bar) for sees in (False, True))
        # A frame that tells nothing can be ignored: a probe that does so badly says nothing of it.
        return before["test"], min(after, before, key=_selected)["test"]

    def _bits(self, horizon: int, lag: int, seed: int, sees: bool, bar: Any) -> dict[str, Bits]:
        """Bits of the rows under one probe; read where it was trained before."""
        settings = asdict(replace(self.config, horizons=(horizon,), lags=(lag,), seeds=1))
        facts = json.dumps([FORM, self.key, settings, seed, sees])
        name = hashlib.sha256(facts.encode()).hexdigest()[:16]
        file = self.out / PROBES / f"{name}.npz"
        if not file.exists():
            found = self._trained(horizon, lag, seed, sees, bar)
            file.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(file) as partial, partial.open("wb") as opened:
                np.savez(opened, allow_pickle=False, **found)
        with np.load(file, allow_pickle=False) as kept:
            return dict(kept)

    def _trained(self, horizon: int, lag: int, seed: int, sees: bool, bar: Any) -> dict[str, Bits]:
        train = self._windows(self.train, horizon, lag)
        select = self._windows(self.chosen_by, horizon, lag)
        chosen = (select, select.spread(self.config.num_windows, *self._halves(1)))
        centres = self._centres(train)
        asked = (self.store.spec, centres, self.config, seed, sees, self.device, bar.update)
        probe = train_probe(train, chosen, *asked)
        places = {"select": chosen, "test": self._judged(horizon, lag)}
        return {name: bits_of(probe, *at, self.device) for name, at in places.items()}

    def _centres(self, train: HorizonWindows) -> Centres:
        """Typical means of the rows between two frames."""
        sample = train.batch(train.spread(SAMPLE))
        return centres_of(sample.before.numpy(), sample.row.numpy(), self.config.centres, seed=0)


def _selected(found: dict[str, Bits]) -> float:
    return float(found["select"].mean())


def advice(found: Sequence[Attainable], tokens_per_frame: int, steps_per_s: float) -> list[str]:
    """What the estimates say: is there something to hear, at another lag, at a longer stride?

    Args:
        steps_per_s: time steps of a second; a step may hold several frames.
    """
    base = next(answer for answer in found if answer.lag == 0)
    bits, lines = base.bits_per_frame, []
    per_token = (bits.value or 0.0) / tokens_per_frame
    lines.append(
        f"the actions tell {bits.value:.2f} bits of a frame {base.horizon / steps_per_s:.2g} s "
        f"ahead ({per_token:.4f} per token)"
    )
    if bits.low is not None and bits.low <= 0:
        lines.append("that is not more than nothing: its interval holds 0")
    late = [a for a in found if a.lag and a.horizon == base.horizon]
    best = max(late, key=lambda a: a.bits_per_frame.value or 0.0, default=None)
    if best and _above(best, base):
        lines.append(
            f"rows {best.lag:+d} steps away tell more ({best.bits_per_frame.value:.2f} bits): the "
            "actions are shifted against the frames, or act later than that; shift the columns"
        )
    longer = [a for a in found if not a.lag and a.horizon > base.horizon]
    best = max(longer, key=lambda a: a.bits_per_frame.value or 0.0, default=None)
    if best and _above(best, base):
        lines.append(
            f"a stride of {best.horizon} steps lets them be heard: "
            f"{best.bits_per_frame.value:.2f} bits per frame (raise data.encode.every "
            f"{best.horizon}-fold)"
        )
    return lines


def _above(other: Attainable, base: Attainable) -> bool:
    """Clearly: by a tenth, and by all seeds."""
    more = [a > b for a, b in zip(sorted(other.by_seed), sorted(base.by_seed), strict=True)]
    ours, theirs = other.bits_per_frame.value or 0.0, base.bits_per_frame.value or 0.0
    return all(more) and ours > 1.1 * max(theirs, 0.0)
