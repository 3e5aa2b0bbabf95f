"""Values by an occupancy model and by rollouts of a GPT: error against CPU seconds per decision.

    python -m benchmarks.values OCCUPANCY MODEL data/tokens/NAME --plot docs/values.png --write

Both read the same states and share a reward head. The rollouts hold the newest action ("held"), or
are told what was driven ("told"), which no decision knows. Seeds are those of sampling. Dreams are
drawn on `--device`, seconds are of one thread of a CPU.
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
from torch import Tensor

import training  # noqa: F401  (first: it repairs torchvision)
from benchmarks.__main__ import report
from drives.actions.units import REWARD
from drives.tokens.store import TokenStore
from training.pages.text_table import markdown_table
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.intervals import mean_over_drives
from worldmodel.evaluation.report.terminal import interval
from worldmodel.evaluation.values.estimates import (
    discounted,
    num_counted,
    num_truncated,
    whole_return,
)
from worldmodel.evaluation.values.rewards import (
    CONVOLUTIONS,
    RewardHead,
    fit_rewards,
    rewarded,
)
from worldmodel.load import load_world_model
from worldmodel.planning.values import ActionValues

MISSING = 0.05
SAMPLES = (1, 4, 16, 32)  # of the occupancy model
FUTURES, HORIZONS = (1, 3), (4, 8, 16)  # of the rollouts
REWARD_STEPS, SMOOTH_S = 200, 1.0
TRUNCATED = "against the truncated return, as published"
TOGETHER = 1024  # dreams in a batch


@dataclass(frozen=True)
class State:
    """A frame of a test drive: what came before, what followed, and what was earned.

    Attributes:
        value: its return.
        truncated: its first rewards alone, as in Video Occupancy Models.
    """

    drive: str
    tokens: Tensor
    future: Tensor
    actions: Tensor
    value: float
    truncated: float


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


def states_of(
    store: TokenStore, split: str, column: int, gamma: float, num: int, past: int
) -> list[State]:
    """States, evenly spread over the drives of a split."""
    steps = num_counted(gamma, MISSING)
    drives = store.drives(split)
    places = [(drive, at) for drive in drives for at in range(past - 1, drive.num_steps - steps, 7)]
    found = []
    for index in np.linspace(0, len(places) - 1, num).astype(int):
        drive, at = places[index]
        rewards = drive.columns[at : at + steps, column].astype(float)
        tokens = np.asarray(drive.tokens[at - past + 1 : at + 1 + steps], np.int64)
        frames = torch.from_numpy(tokens.reshape(past + steps, -1, tokens.shape[-1]))
        actions = np.array(drive.actions[at - past + 1 : at + max(HORIZONS)], np.float32)
        found.append(
            State(
                drive.id,
                frames[:past],
                frames[past:],
                torch.from_numpy(actions),
                float(whole_return(rewards, gamma)),
                float(discounted(rewards[: num_truncated(gamma)], gamma)),
            )
        )
    return found


def points(
    occupancy: Dynamics,
    other: Dynamics,
    head: RewardHead,
    states: list[State],
    seeds: int,
    device: str,
) -> Iterator[Point]:
    """Every way and budget; smaller budgets use the first dreams of the largest."""
    gamma = occupancy.config.gamma  # type: ignore[attr-defined]
    values = ActionValues(occupancy, head, gamma, max(SAMPLES))
    drawn = _dreams(values, states, seeds, 1, True, device)[..., 0]
    for count in SAMPLES:
        estimate = drawn[..., :count].mean(-1) / (1 - gamma)
        seconds = _seconds(replace(values, num_samples=count), states, 1)
        yield Point("occupancy", f"{count} samples", estimate, seconds)
    values = ActionValues(other, head, gamma, max(FUTURES))
    least = min(HORIZONS)  # a frame costs the same, as long as the context slides
    per_frame = {
        count: _seconds(replace(values, num_samples=count), states, least) / least
        for count in FUTURES
    }
    for way, held in (("rollouts, held", True), ("rollouts, told", False)):
        drawn = _dreams(values, states, seeds, max(HORIZONS), held, device)
        for horizon in HORIZONS:
            for count in FUTURES:
                rewards = drawn[..., :count, :horizon].mean(-2)
                estimate, seconds = whole_return(rewards, gamma), per_frame[count] * horizon
                yield Point(way, f"{count} futures of {horizon} frames", estimate, seconds)


def _candidate(state: State, horizon: int, held: bool) -> Tensor:
    past = len(state.tokens)
    if held:  # the newest action that is known: the one that led here
        return state.actions[past - 2].expand(1, horizon, -1)
    return state.actions[None, past - 1 : past - 1 + horizon]


def _dreams(
    values: ActionValues, states: list[State], seeds: int, horizon: int, held: bool, device: str
) -> Float[np.ndarray, "state seed sample step"]:
    """Rewards of all dreams; an occupancy model too holds the newest action."""
    on_device = (part.to(device) for part in (values.network, values.head))
    many = ActionValues(*on_device, values.gamma, seeds * values.num_samples)
    rows = []
    size = max(1, TOGETHER // many.num_samples)
    for start in range(0, len(states), size):
        some = states[start : start + size]
        known = zip(*(_before(values, s) for s in some), strict=True)
        before = (torch.stack(part).to(device) for part in known)
        candidates = torch.cat([_candidate(s, horizon, held) for s in some]).to(device)
        rows.append(many.rewards(*before, candidates, start).cpu())
    values.network.cpu(), values.head.cpu()
    return torch.cat(rows).unflatten(1, (seeds, -1)).numpy()


def _before(values: ActionValues, state: State) -> tuple[Tensor, Tensor]:
    past = min(len(state.tokens), values.most_frames)
    end = len(state.tokens)
    return state.tokens[-past:], state.actions[end - past : end - 1]


def _seconds(values: ActionValues, states: list[State], horizon: int) -> float:
    """CPU seconds of one decision: one state, one candidate."""
    spent = []
    for state in states[:3]:
        start = time.process_time()
        values(*_before(values, state), _candidate(state, horizon, True))
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def references(
    head: RewardHead, states: list[State], typical: float, gamma: float
) -> dict[str, Float[np.ndarray, " state"]]:
    """Estimates without a dream; the last one reads the future, and shows what the head loses."""
    stack = head.stack
    now = torch.stack([s.tokens[-stack:] for s in states])
    before = [s.tokens[len(s.tokens) + 1 - stack :] for s in states]
    real = torch.stack([torch.cat([b, s.future]) for b, s in zip(before, states, strict=True)])
    return {
        "floor: mean of train rewards": np.full(len(states), typical / (1 - gamma)),
        "floor: reward of the newest frames": head(now)[:, 0].numpy() / (1 - gamma),
        "reward head on the real future": whole_return(head(real).numpy(), gamma),
    }


def plot(found: list[Point], lines: dict[str, float], truth: np.ndarray, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for way in dict.fromkeys(point.way for point in found):
        own = sorted((p.seconds, float(p.errors(truth).mean())) for p in found if p.way == way)
        axes.plot(*zip(*own, strict=True), "o-", label=way)
    for name, error in lines.items():
        axes.axhline(error, linestyle=":", color="grey")
        axes.annotate(name, (axes.get_xlim()[1], error), ha="right", va="bottom", fontsize=8)
    axes.set(
        xscale="log",
        xlabel="CPU seconds per decision",
        ylabel="squared error of the value",
        yscale="log",
    )
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


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.values", description=__doc__)
    parser.add_argument("occupancy", help="checkpoint of an occupancy model")
    parser.add_argument("model", help="checkpoint of a model that is rolled out")
    parser.add_argument("store", type=Path, help="token store with a column of rewards")
    parser.add_argument("--reward", default=REWARD, help="the column")
    parser.add_argument("--states", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="draws the dreams")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    parser.add_argument("--write", action="store_true", help="append to docs/results.md")
    args = parser.parse_args()
    occupancy, other = (load_world_model(name).network for name in (args.occupancy, args.model))
    store, gamma = TokenStore(args.store), occupancy.config.gamma  # type: ignore[attr-defined]
    column = store.columns.index(args.reward)
    grid = occupancy.layout.height, occupancy.layout.width
    span = max(1, round(SMOOTH_S / store.spec.step_s))
    stacks, led = rewarded(store.drives("train"), column, grid, occupancy.sample_steps, span)
    head = fit_rewards(stacks, led, store.spec, REWARD_STEPS, convolutions=CONVOLUTIONS)
    past = max(occupancy.state_steps, other.config.context_steps)
    states = states_of(store, "test", column, gamma, args.states, past)
    found = list(points(occupancy, other, head, states, args.seeds, args.device))
    known = references(head, states, float(led.mean()), gamma)
    cells = [[p.way, p.budget, f"{p.seconds:.3f}", *told(p.estimates, states)] for p in found]
    cells += [[name, "", "", *told(one[:, None], states)] for name, one in known.items()]
    titles = "way", "budget", "CPU s per decision", "squared error", "std over seeds", TRUNCATED
    drives = len({state.drive for state in states})
    text = f"{args.reward}: {len(states)} states of {drives} test drives, gamma {gamma:g}, "
    text += f"{args.seeds} seeds of sampling, rewards read from {head.stack} frames"
    report(f"{text}\n\n{markdown_table(list(titles), cells)}", args.write)
    if args.plot:
        truth = np.array([state.value for state in states])
        lines = {name: float(((one - truth) ** 2).mean()) for name, one in known.items()}
        plot(found, lines, truth, args.plot)


if __name__ == "__main__":
    main()
