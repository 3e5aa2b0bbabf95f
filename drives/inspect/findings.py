"""What an inspection found: facts as JSON has them, and what is wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drives.actions.statistics import ActionStatistics, statistics_of
from drives.actions.units import is_action
from drives.inspect.lag import OFFSETS, Lag, measure_lag
from drives.inspect.takes import Opened, Take
from drives.video.gaps import describe
from drives.video.rate import same_rate
from training.errors import BadInput

BINS = 24
SHOWN_GAPS = 20


@dataclass(frozen=True)
class Findings:
    """What lies at a path.

    Attributes:
        num_found, num_read: recordings there, and of these the ones that the rest is about.
        splits, rates, sizes: recordings of each.
        actions: of the recordings that were read; of all train drives where these are a part of a
            store that has noted them.
        histograms: rows that were read in each of `BINS` equal bins of a column's range.
        gaps: (recording, its missing frames in words).
        problems: what cannot be used; ends an import or a training.
        warnings: what can be used and is suspect.
    """

    path: str
    kind: str
    text: str
    num_found: int
    num_read: int
    hours: float
    splits: dict[str, int]
    rates: dict[str, int]
    sizes: dict[str, int]
    actions: ActionStatistics
    histograms: dict[str, list[int]]
    gaps: list[tuple[str, str]]
    problems: list[str]
    warnings: list[str]
    lags: list[Lag]

    def to_json(self) -> dict[str, Any]:
        lags = [{**asdict(lag), "offsets": OFFSETS, "fault": lag.fault} for lag in self.lags]
        return {**asdict(self), "actions": self.actions.to_json(), "lags": lags}


def inspect(path: Path, opened: Opened, with_lag: bool = True) -> Findings:
    """All findings; a frame that cannot be read is a problem as well."""
    takes, problems = opened.takes, list(opened.problems)
    names = _common_columns(takes)
    rows = [take.actions[:, [take.names.index(n) for n in names]] for take in takes]
    statistics, text = statistics_of(names, rows), opened.text
    noted = opened.noted if len(takes) < opened.num_found else None
    if noted and noted.names == names:
        statistics, text = noted, f"{text}; actions of all {noted.num_rows} train steps"
    lags: list[Lag] = []
    if with_lag and opened.has_pixels:
        try:
            lags = measure_lag([take for take in takes if take.names])
        except BadInput as error:
            problems.append(str(error))
    gaps = [(take.id, describe(take.drops)) for take in takes if take.drops]
    return Findings(
        path=str(path),
        kind=opened.kind,
        text=text,
        num_found=opened.num_found,
        num_read=len(takes),
        hours=sum(take.num_frames / take.fps for take in takes) / 3600,
        splits=_counts(str(take.split or "none yet") for take in takes),
        rates=_counts(f"{take.fps:.4g}" for take in takes),
        sizes=_counts("x".join(map(str, take.size)) for take in takes),
        actions=statistics,
        histograms=_histograms(names, rows, statistics),
        gaps=gaps[:SHOWN_GAPS],
        problems=problems,
        warnings=[*_warnings(takes, names, statistics), *(f for lag in lags if (f := lag.fault))],
        lags=lags,
    )


def _counts(values: Any) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _common_columns(takes: Sequence[Take]) -> tuple[str, ...]:
    if not takes:
        return ()
    common = set.intersection(*(set(take.names) for take in takes))
    return tuple(name for name in takes[0].names if name in common and is_action(name))


def _histograms(
    names: Sequence[str], rows: Sequence[np.ndarray], statistics: ActionStatistics
) -> dict[str, list[int]]:
    found = {}
    for index, name in enumerate(names if statistics.num_read else ()):
        low, high = statistics.quantiles[index][0], statistics.quantiles[index][-1]
        counts = sum(
            (np.histogram(part[:, index], BINS, (low, high))[0] for part in rows),
            start=np.zeros(BINS, np.int64),
        )
        found[name] = counts.tolist()
    return found


def _warnings(
    takes: Sequence[Take], names: Sequence[str], statistics: ActionStatistics
) -> list[str]:
    found = []
    by_rate = sorted(takes, key=lambda take: take.fps)
    if takes and not same_rate(by_rate[0].fps, by_rate[-1].fps):
        slow = by_rate[0].fps
        found.append(
            f"rates are {slow:g} to {by_rate[-1].fps:g} fps; one training set has one rate: train "
            f"with data.source.fps={slow:g}"
        )
    if len({take.size for take in takes}) > 1:
        found.append("frames have several sizes; they are scaled to one, or refused by aspect")
    others = sorted({name for take in takes for name in take.names} - set(names))
    if lost := [name for name in others if is_action(name)]:
        found.append(f"columns that only some recordings have are left out: {', '.join(lost)}")
    if rows := [name for name in others if not is_action(name)]:
        what = "columns that number, time or reward the rows"
        found.append(f"{what} are no actions: {', '.join(rows)}")
    for name, std in zip(statistics.names, statistics.std, strict=True):
        if statistics.num_read > 1 and std == 0:
            found.append(f"{name} has one value in all rows; a model learns nothing from it")
    if not names and takes:
        found.append("no column of actions is in all recordings: frames alone can be trained on")
    short = [take.id for take in takes if take.num_frames < 2]
    if short:
        found.append(f"recordings of fewer than two frames: {', '.join(short[:5])}")
    for same in _repeated(takes):
        found.append(f"recordings have the same rows of actions, byte by byte: {', '.join(same)}")
    return found


def _repeated(takes: Sequence[Take]) -> list[list[str]]:
    """Recordings whose actions are equal: copies, or a log that was joined to the wrong video."""
    by_rows: dict[bytes, list[str]] = {}
    for take in takes:
        if take.actions.size and np.ptp(take.actions, axis=0).any():
            by_rows.setdefault(take.actions.tobytes(), []).append(take.id)
    return [same for same in by_rows.values() if len(same) > 1]
