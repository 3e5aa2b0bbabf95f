"""Values by an occupancy model and by rollouts of a GPT: error against CPU seconds per decision.

    python -m benchmarks.values OCCUPANCY MODEL data/tokens/NAME --plot docs/values.png --write

Both read the same states and share a reward head. The rollouts hold the newest action ("held");
`--told` adds some that are told what was driven, which no decision knows. Every budget of the
occupancy model is compared, state by state, with the rollouts that hold the action and take about
as long, and about ten times as long. Seeds are those of sampling. Dreams are drawn on `--device`,
seconds are of one thread of a CPU, of one state and one candidate.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

import training  # noqa: F401  (first: it repairs torchvision)
from benchmarks.__main__ import report
from benchmarks.returns import Rewards, State
from drives.actions.units import REWARD
from drives.tokens.store import TokenStore
from training.pages.text_table import markdown_table
from worldmodel.decoding.config import Sampling
from worldmodel.evaluation.intervals import mean_over_drives
from worldmodel.evaluation.report.terminal import interval
from worldmodel.evaluation.values.estimates import whole_return
from worldmodel.load import load_world_model
from worldmodel.planning.values import ActionValues

SAMPLES = (1, 2, 4, 8)  # of the occupancy model
FUTURES, HORIZONS = (1, 2), (2, 4, 8, 16)  # of the rollouts; the longest is that of a return
TIMES = (1, 10)  # the rollouts' time, of the occupancy model's
TIMED, TIMED_FRAMES = 3, (2, 8)  # decisions, and frames of rollouts, that are timed
OCCUPANCY, HELD = "occupancy", "rollouts, held"
TRUNCATED = "against the truncated return, as published"
TOGETHER = 1024  # dreams in a batch


@dataclass(frozen=True)
class Point:
    """Estimates of all states by a way and a budget, and its CPU seconds per decision."""

    way: str
    budget: str
    estimates: Float[np.ndarray, "state seed"]
    seconds: float

    def errors(self, truth: Float[np.ndarray, " state"]) -> Float[np.ndarray, "state seed"]:
        """Squared."""
        return np.asarray((self.estimates - truth[:, None]) ** 2)


def points(
    sampled: ActionValues,
    rolled: ActionValues,
    states: list[State],
    seeds: int,
    device: str,
    also_told: bool = False,
) -> Iterator[Point]:
    """Every way and budget; smaller budgets use the first dreams of the largest."""
    gamma, longest, (few, many) = sampled.gamma, len(states[0].future), TIMED_FRAMES
    timed = [(replace(sampled, num_samples=count), 1) for count in SAMPLES]
    for count in FUTURES:
        timed += [(replace(rolled, num_samples=count), frames) for frames in TIMED_FRAMES]
    spent = iter(_seconds(timed, states))
    drawn = _dreams(sampled, max(SAMPLES), states, seeds, 1, True, device)[..., 0]
    for count in SAMPLES:
        estimate = drawn[..., :count].mean(-1) / (1 - gamma)
        yield Point(OCCUPANCY, f"{count} samples", estimate, next(spent))
    ends = {count: (next(spent), next(spent)) for count in FUTURES}
    for way, held in {HELD: True, **({"rollouts, told": False} if also_told else {})}.items():
        drawn = _dreams(rolled, max(FUTURES), states, seeds, longest, held, device)
        for horizon in (*(h for h in HORIZONS if h < longest), longest):
            for count, (short, long) in ends.items():
                rewards = drawn[..., :count, :horizon].mean(-2)
                seconds = short + (long - short) / (many - few) * (horizon - few)
                name = f"{count} futures of {horizon} frames"
                yield Point(way, name, whole_return(rewards, gamma), seconds)


def _candidate(state: State, horizon: int, held: bool) -> Tensor:
    past = len(state.tokens)
    if held:  # the newest action that is known: the one that led here
        return state.actions[past - 2].expand(1, horizon, -1)
    return state.actions[None, past - 1 : past - 1 + horizon]


def _dreams(
    values: ActionValues,
    count: int,
    states: list[State],
    seeds: int,
    horizon: int,
    held: bool,
    device: str,
) -> Float[np.ndarray, "state seed sample step"]:
    """Rewards of all dreams; an occupancy model too holds the newest action."""
    values.network.to(device), values.head.to(device)
    # States are no candidates: their errors are averaged, so each meets its own chances.
    many = replace(values, num_samples=seeds * count, sampling=Sampling(top_k=0))
    found = []
    size = max(1, TOGETHER // many.num_samples)
    for start in range(0, len(states), size):
        some = states[start : start + size]
        tokens, rows = zip(*(_before(values, s) for s in some), strict=True)
        candidates = torch.cat([_candidate(s, horizon, held) for s in some])
        known = (torch.stack(tokens), torch.stack(rows), candidates)
        dreamt = many.rewards(*(part.to(device) for part in known), seed=start)
        found.append(dreamt.cpu())
    values.network.cpu(), values.head.cpu()
    return torch.cat(found).unflatten(1, (seeds, -1)).numpy()


def _before(values: ActionValues, state: State) -> tuple[Tensor, Tensor]:
    past = min(len(state.tokens), values.most_frames)
    end = len(state.tokens)
    return state.tokens[-past:], state.actions[end - past : end - 1]


def _seconds(decisions: list[tuple[ActionValues, int]], states: list[State]) -> list[float]:
    """CPU seconds of decisions with as many frames: one state, one candidate; by turns."""
    spent: list[list[float]] = [[] for _ in decisions]
    for state in states[:TIMED]:
        for own, (values, horizon) in zip(spent, decisions, strict=True):
            start = time.process_time()
            values(*_before(values, state), _candidate(state, horizon, True))
            own.append(time.process_time() - start)
    return [float(np.median(own)) for own in spent]


def plot(found: list[Point], lines: dict[str, float], truth: np.ndarray, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for way in dict.fromkeys(point.way for point in found):
        own = sorted((p.seconds, float(p.errors(truth).mean())) for p in found if p.way == way)
        axes.plot(*zip(*own, strict=True), "o-", label=way)
    for name, error in lines.items():
        axes.axhline(error, linestyle=":", color="grey")
        axes.annotate(name, (axes.get_xlim()[1], error), ha="right", va="bottom", fontsize=8)
    axes.set(xlabel="CPU seconds per decision", ylabel="squared error of the value")
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.legend()
    figure.savefig(path, dpi=110)


def told(estimates: Float[np.ndarray, "state seed"], states: list[State]) -> list[str]:
    """Cells: squared error with its interval, deviation over seeds, error as published."""
    drives = [state.drive for state in states]
    truth, truncated = (np.array([getattr(s, n) for s in states]) for n in ("value", "truncated"))
    errors, published = ((estimates - t[:, None]) ** 2 for t in (truth, truncated))
    spread = f"{errors.mean(0).std(ddof=1):.2f}" if errors.shape[1] > 1 else ""
    found = (mean_over_drives(e.mean(1), drives) for e in (errors, published))
    return [interval(vars(next(found))), spread, f"{next(found).value:.2f}"]


def rivals(found: list[Point], states: list[State]) -> list[str]:
    """How much larger the occupancy model's errors are than those of slower rollouts."""
    truth, drives = np.array([s.value for s in states]), [s.drive for s in states]
    own, held = ([p for p in found if p.way == way] for way in (OCCUPANCY, HELD))
    lines = []
    for point in own:
        for times in TIMES:
            asked = times * point.seconds
            rival = min(held, key=lambda p: abs(np.log(p.seconds / asked)))
            more = (point.errors(truth) - rival.errors(truth)).mean(1)
            lines.append(
                f"- {point.budget} ({point.seconds:.2f} s) against {rival.budget} "
                f"({rival.seconds:.2f} s): {interval(vars(mean_over_drives(more, drives)))}"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.values", description=__doc__)
    parser.add_argument("occupancy", help="checkpoint of an occupancy model")
    parser.add_argument("model", help="checkpoint of a model that is rolled out")
    parser.add_argument("store", type=Path, help="token store with a column of rewards")
    parser.add_argument("--reward", default=REWARD, help="the column")
    parser.add_argument("--states", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--told", action="store_true", help="rollouts of the true actions too")
    parser.add_argument("--device", default="cpu", help="draws the dreams")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    parser.add_argument("--write", action="store_true", help="append to docs/results.md")
    args = parser.parse_args()
    occupancy, other = (load_world_model(name).network for name in (args.occupancy, args.model))
    store, gamma = TokenStore(args.store), occupancy.config.gamma  # type: ignore[attr-defined]
    rewards = Rewards(store, store.columns.index(args.reward), gamma)
    head, typical = rewards.head(occupancy.sample_steps)
    past = max(occupancy.state_steps, other.config.context_steps)
    states = rewards.states("test", args.states, past)
    sampled, rolled = (ActionValues(network, head, gamma) for network in (occupancy, other))
    found = list(points(sampled, rolled, states, args.seeds, args.device, args.told))
    known = rewards.without_dreams(states, head, typical)
    cells = [[p.way, p.budget, f"{p.seconds:.3f}", *told(p.estimates, states)] for p in found]
    cells += [[name, "", "", *told(one[:, None], states)] for name, one in known.items()]
    titles = "way", "budget", "CPU s per decision", "squared error", "std over seeds", TRUNCATED
    drives = len({state.drive for state in states})
    text = f"{args.reward}: {len(states)} states of {drives} test drives, gamma {gamma:g}, "
    text += f"{args.seeds} seeds of sampling, rewards read from {head.stack} frames"
    text += f"; parameters: {occupancy.num_parameters():,} and {other.num_parameters():,}"
    more = "Squared error of the occupancy model less that of rollouts that hold the action:"
    told_rivals = "\n".join(rivals(found, states))
    table = markdown_table(list(titles), cells)
    report(f"{text}\n\n{table}\n\n{more}\n\n{told_rivals}", args.write)
    if args.plot:
        truth = np.array([state.value for state in states])
        lines = {name: float(((one - truth) ** 2).mean()) for name, one in known.items()}
        plot(found, lines, truth, args.plot)


if __name__ == "__main__":
    main()
