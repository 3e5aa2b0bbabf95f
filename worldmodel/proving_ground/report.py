"""What a proving ground found: lines of JSON, a table, a plot."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from training.disk.plain_json import finite, to_json
from training.pages.text_table import markdown_table
from worldmodel.evaluation.report.terminal import interval
from worldmodel.proving_ground.dreamed import Dreamed
from worldmodel.proving_ground.ranking import Ranking, rank
from worldmodel.proving_ground.simulated import SCRIPTED

LINES, PLOT, TABLE = "results.jsonl", "ranking.png", "ranking.md"


@dataclass(frozen=True)
class Races:
    """All drives of all policies.

    Attributes:
        names: of the policies.
        real, off_road: [policy track step] on the road, the scripted driver last.
        dreamt: of the policies, over tracks and steps; the mean of several dreams.
        spread: standard deviation of the returns of several dreams, [policy track step], summed
            up to each step; zeros for one dream.
        fps: steps per second.
        horizons_s: what is compared.
    """

    names: Sequence[str]
    real: Float[np.ndarray, "policy track step"]
    off_road: Float[np.ndarray, "policy track step"]
    dreamt: Dreamed
    spread: Float[np.ndarray, "policy track step"]
    fps: float
    horizons_s: Sequence[float]
    _rankings: dict[float, Ranking] = field(default_factory=dict, repr=False, compare=False)

    def steps(self, horizon_s: float) -> int:
        return max(1, round(horizon_s * self.fps))

    def share(self, policy: int, horizon_s: float) -> float:
        """Return on the road as a share of the scripted driver's."""
        steps = self.steps(horizon_s)
        mine, theirs = (self.real[i, :, :steps].sum() for i in (policy, -1))
        return float(mine / theirs)

    def ranking(self, horizon_s: float) -> Ranking:
        """At a horizon; computed once."""
        if horizon_s not in self._rankings:
            self._rankings[horizon_s] = self._ranking(horizon_s)
        return self._rankings[horizon_s]

    def _ranking(self, horizon_s: float) -> Ranking:
        steps, dream = self.steps(horizon_s), self.dreamt
        signals = {
            "entropy": dream.entropy[..., :steps].mean(-1),
            "drift": dream.drift[..., :steps].mean(-1),
            "outside": dream.outside[..., :steps].mean(-1),
            "off road": dream.off_road[..., :steps].mean(-1),
        }
        if self.spread.any():
            signals["spread"] = self.spread[..., steps - 1]
        real = self.real[:-1, :, :steps].sum(-1)
        return rank(dream.rewards[..., :steps].sum(-1), real, signals)


def lines_of(races: Races) -> Iterator[dict[str, Any]]:
    """One plain record per policy, then one per horizon."""
    for number, name in enumerate([*races.names, SCRIPTED]):
        record: dict[str, Any] = {"policy": name}
        for horizon in races.horizons_s:
            steps = races.steps(horizon)
            record[f"real_{horizon:g}s"] = float(races.real[number, :, :steps].sum(-1).mean())
            record[f"share_{horizon:g}s"] = races.share(number, horizon)
            if number < len(races.names):
                dreamt = races.dreamt.rewards[number, :, :steps].sum(-1)
                record[f"dreamt_{horizon:g}s"] = float(dreamt.mean())
        record["off_road"] = float(races.off_road[number].mean())
        if number < len(races.names):
            record["dreamt_off_road"] = float(races.dreamt.off_road[number].mean())
        yield record
    for horizon in races.horizons_s:
        found = races.ranking(horizon)
        told = asdict(found) | {"tracks": races.real.shape[1], "policies": len(races.names)}
        yield {"horizon_s": horizon, **told}


def tables(races: Races) -> str:
    """Policies from best to worst on the road at the longest horizon; rankings by horizon."""
    last = max(races.horizons_s)
    order = sorted(range(len(races.names) + 1), key=lambda i: -races.share(i, last))
    steps, cells = races.steps(last), []
    for number in order:
        scripted = number == len(races.names)
        dreamt = None if scripted else races.dreamt.rewards[number, :, :steps].sum(-1).mean()
        cells.append(
            [
                SCRIPTED if scripted else races.names[number],
                f"{races.real[number, :, :steps].sum(-1).mean():.1f}",
                "" if dreamt is None else f"{dreamt:.1f}",
                f"{races.share(number, last):.0%}",
                f"{races.off_road[number, :, :steps].mean():.0%}",
            ]
        )
    columns = ["policy", f"real return, {last:g} s", "dreamt", "of the scripted", "off road"]
    rows = []
    for horizon in races.horizons_s:
        found = races.ranking(horizon)
        told = "; ".join(f"{name} {interval(one.plain())}" for name, one in found.warnings.items())
        right = f"{found.right_decided:.0%} of {found.decided:.0%}, {found.right_others:.0%}"
        margin = interval(found.margin.plain())
        rows.append([f"{horizon:g} s", interval(found.tau.plain()), right, margin, told])
    head = ["horizon", "tau", "decided pairs right, others", "margin", "signal against error"]
    return markdown_table(columns, cells) + "\n\n" + markdown_table(head, rows)


def plot(races: Races) -> Figure:
    """Returns in the dream against the road, by horizon."""
    figure = Figure(figsize=(4 * len(races.horizons_s), 4), layout="constrained")
    axes = figure.subplots(1, len(races.horizons_s), squeeze=False)[0]
    for axis, horizon in zip(axes, races.horizons_s, strict=True):
        steps = races.steps(horizon)
        x = races.real[:-1, :, :steps].sum(-1).mean(1)
        y = races.dreamt.rewards[..., :steps].sum(-1).mean(1)
        axis.scatter(x, y, s=18)
        for name, *place in zip(races.names, x, y, strict=True):
            axis.annotate(name, place, fontsize=6, xytext=(3, 2), textcoords="offset points")
        tau = interval(races.ranking(horizon).tau.plain())
        axis.set(title=f"{horizon:g} s: tau {tau}", xlabel="return on the road", ylabel="in dreams")
        axis.title.set_fontsize(8)
    return figure


def write(races: Races, folder: Path) -> str:
    """Write everything into the folder; returns the tables."""
    text = tables(races)
    lines = "".join(to_json(finite(line), indent=None) + "\n" for line in lines_of(races))
    (folder / LINES).write_text(lines)
    (folder / TABLE).write_text(text + "\n")
    plot(races).savefig(folder / PLOT, dpi=110)
    return text
