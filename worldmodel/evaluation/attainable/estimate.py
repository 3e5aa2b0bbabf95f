"""How many bits of the next frame the actions can tell: pairs of probes with and without them.

The difference of the two cross entropies on held-out drives estimates the conditional mutual
information I(frame; actions | past frames). Without actions, the better counts of a probe that was
trained so and the mixture over actions of its partner (`mixture`), chosen on other windows. On the
known-entropy world the difference is H0 - H1 (`worldmodel.known_entropy.world`). It is 0 where the
probe with actions is worse than the bound without.
"""

import hashlib
import json
import math
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
from worldmodel.evaluation.attainable.mixture import SAMPLE, centres_of, mixture_nats
from worldmodel.evaluation.attainable.probe import bits_of, train_probe
from worldmodel.evaluation.attainable.windows import HorizonWindows, situations, statistics
from worldmodel.evaluation.intervals import Estimate, mean_over_drives

Bits = Float[np.ndarray, " window"]
PROBES = "probes"  # folder of finished probes' bits
FORM = 2  # of what is kept of a probe


@dataclass(frozen=True)
class Attainable:
    """One answer.

    Attributes:
        bits_per_frame: what the actions tell of a frame, with an interval over drives.
        with_actions, without_actions: cross entropy of a frame, in bits.
        by_seed: the estimate of every pair of probes.
        by_situation: the estimate within each situation that the columns tell.
        by_drive: mean and number of windows of each drive.
    """

    horizon: int
    lag: int
    bits_per_frame: Estimate
    with_actions: Estimate
    without_actions: Estimate
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
        num = (len(wanted) + len(horizons)) * self.config.seeds
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
        without, with_actions = (np.mean([pair[i] for pair in pairs], 0) for i in (0, 1))
        told = without - with_actions
        windows, ids = self._judged(horizon, 0)
        drives = [windows.place(index)[0].id for index in ids]
        by_drive = {d: told[[other == d for other in drives]] for d in sorted(set(drives))}
        rows, fps = windows.led_by(ids), self.store.spec.fps
        there = situations(self.store.action_names, rows, self.scale, fps)
        return Attainable(
            horizon,
            lag,
            mean_over_drives(told, drives),
            mean_over_drives(with_actions, drives),
            mean_over_drives(without, drives),
            tuple(float(np.mean(a - b)) for a, b in pairs),
            {
                name: mean_over_drives(told[fits], np.asarray(drives)[fits].tolist())
                for name, fits in there.items()
                if fits.any()
            },
            {name: (float(bits.mean()), len(bits)) for name, bits in by_drive.items()},
        )

    def _pair(self, horizon: int, lag: int, seed: int, bar: Any) -> tuple[Bits, Bits]:
        """Bits of the test windows without and with actions."""
        direct = self._bits(horizon, 0, seed, False, bar)
        read, mixed = self._bits(horizon, lag, seed, True, bar), self._mixed(horizon, seed, bar)
        without = min(direct, mixed, key=_selected)
        # Rows that tell nothing can be ignored: a probe that does so badly says nothing of them.
        return without["test"], min(read, without, key=_selected)["test"]

    def _mixed(self, horizon: int, seed: int, bar: Any) -> dict[str, Bits]:
        read = self._bits(horizon, 0, seed, True, bar)
        return {name: read[f"mixture_{name}"] for name in ("select", "test")}

    def _bits(
        self, horizon: int, lag: int, seed: int, with_actions: bool, bar: Any
    ) -> dict[str, Bits]:
        """Bits of the windows under one probe; read where it was trained before."""
        settings = asdict(replace(self.config, horizons=(horizon,), lags=(lag,), seeds=1))
        facts = json.dumps([FORM, self.key, settings, seed, with_actions])
        name = hashlib.sha256(facts.encode()).hexdigest()[:16]
        file = self.out / PROBES / f"{name}.npz"
        if not file.exists():
            found = self._trained(horizon, lag, seed, with_actions, bar)
            file.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(file) as partial, partial.open("wb") as opened:
                np.savez(opened, allow_pickle=False, **found)
        with np.load(file, allow_pickle=False) as kept:
            return dict(kept)

    def _trained(
        self, horizon: int, lag: int, seed: int, with_actions: bool, bar: Any
    ) -> dict[str, Bits]:
        train = self._windows(self.train, horizon, lag)
        select = self._windows(self.chosen_by, horizon, lag)
        chosen = (select, select.spread(self.config.num_windows, *self._halves(1)))
        asked = (self.store.spec, self.config, seed, with_actions, self.device, bar.update)
        probe = train_probe(train, chosen, *asked)
        places = {"select": chosen, "test": self._judged(horizon, lag)}
        found = {k: bits_of(probe, *at, with_actions, self.device) for k, at in places.items()}
        if with_actions and not lag:
            rows = train.batch(train.spread(SAMPLE)).actions[:, -3:-1].numpy()
            centres = centres_of(rows[:, 0], rows[:, -1], self.config.centres, seed)
            for name, (windows, ids) in places.items():
                clips = windows.batches(ids)
                nats = mixture_nats(probe, clips, centres, self.device)
                found[f"mixture_{name}"] = nats[:, -1].numpy() / math.log(2)
        return found


def _selected(found: dict[str, Bits]) -> float:
    return float(found["select"].mean())


def advice(found: Sequence[Attainable], tokens_per_frame: int, fps: float) -> list[str]:
    """What the estimates say: is there something to hear, at another lag, at a longer stride?"""
    base = next(answer for answer in found if answer.lag == 0)
    bits, lines = base.bits_per_frame, []
    per_token = (bits.value or 0.0) / tokens_per_frame
    lines.append(
        f"the actions tell {bits.value:.2f} bits of a frame {base.horizon / fps:.2g} s ahead "
        f"({per_token:.4f} per token)"
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
            f"{best.bits_per_frame.value:.2f} bits per frame (data.encode.every={best.horizon})"
        )
    return lines


def _above(other: Attainable, base: Attainable) -> bool:
    """Clearly: by a tenth, and by all seeds."""
    more = [a > b for a, b in zip(sorted(other.by_seed), sorted(base.by_seed), strict=True)]
    ours, theirs = other.bits_per_frame.value or 0.0, base.bits_per_frame.value or 0.0
    return all(more) and ours > 1.1 * max(theirs, 0.0)
