"""Values by an occupancy model and by rollouts of a GPT: error against CPU seconds per decision.

    python -m benchmarks.values OCCUPANCY MODEL data/tokens/NAME --plot docs/values.png --write

Both read the same states and share a reward head. The rollouts hold the newest action ("held"), or
are told what was driven ("told"), which no decision knows. Seeds are those of sampling.
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
from worldmodel.evaluation.values.estimates import num_counted, whole_return
from worldmodel.evaluation.values.rewards import RewardHead, fit_rewards, rewarded
from worldmodel.load import load_world_model
from worldmodel.planning.values import ActionValues

MISSING = 0.05
SAMPLES = (1, 4, 16, 32)  # of the occupancy model
FUTURES, HORIZONS = (1, 3), (4, 8, 16)  # of the rollouts
REWARD_STEPS = 400


@dataclass(frozen=True)
class State:
    """A frame of a test drive: what came before, and what was earned after it."""

    drive: str
    tokens: Tensor
    actions: Tensor
    value: float


@dataclass(frozen=True)
class Point:
    """Squared errors [state seed] of a way to estimate, and its CPU seconds per decision."""

    way: str
    budget: str
    errors: Float[np.ndarray, "state seed"]
    seconds: float


def states_of(store: TokenStore, split: str, gamma: float, num: int, past: int) -> list[State]:
    """States, evenly spread over the drives of a split."""
    column, steps = store.columns.index(REWARD), num_counted(gamma, MISSING)
    drives = store.drives(split)
    places = [(drive, at) for drive in drives for at in range(past - 1, drive.num_steps - steps, 7)]
    found = []
    for index in np.linspace(0, len(places) - 1, num).astype(int):
        drive, at = places[index]
        rewards = drive.columns[at : at + steps, column].astype(float)
        tokens = np.asarray(drive.tokens[at - past + 1 : at + 1], np.int64)
        grid = tokens.reshape(past, -1, tokens.shape[-1])
        actions = np.array(drive.actions[at - past + 1 : at + max(HORIZONS)], np.float32)
        found.append(
            State(
                drive.id,
                torch.from_numpy(grid),
                torch.from_numpy(actions),
                float(whole_return(rewards, gamma)),
            )
        )
    return found


def points(
    occupancy: Dynamics, other: Dynamics, head: RewardHead, states: list[State], seeds: int
) -> Iterator[Point]:
    """Every way and budget; smaller budgets use the first dreams of the largest."""
    gamma = occupancy.config.gamma  # type: ignore[attr-defined]
    values = ActionValues(occupancy, head, gamma, max(SAMPLES))
    drawn = _dreams(values, states, seeds, 1, held=True)[..., 0]
    for count in SAMPLES:
        estimate = drawn[..., :count].mean(-1) / (1 - gamma)
        seconds = _seconds(replace(values, num_samples=count), states, 1)
        yield Point("occupancy", f"{count} samples", _errors(estimate, states), seconds)
    values = ActionValues(other, head, gamma, max(FUTURES))
    least = min(HORIZONS)  # a frame costs the same, as long as the context slides
    per_frame = {
        count: _seconds(replace(values, num_samples=count), states, least) / least
        for count in FUTURES
    }
    for way, held in (("rollouts, held", True), ("rollouts, told", False)):
        drawn = _dreams(values, states, seeds, max(HORIZONS), held)
        for horizon in HORIZONS:
            for count in FUTURES:
                rewards = drawn[..., :count, :horizon].mean(-2)
                errors = _errors(whole_return(rewards, gamma), states)
                yield Point(
                    way, f"{count} futures of {horizon} frames", errors, per_frame[count] * horizon
                )


def _candidate(state: State, horizon: int, held: bool) -> Tensor:
    past = len(state.tokens)
    if held:  # the newest action that is known: the one that led here
        return state.actions[past - 2].expand(1, horizon, -1)
    return state.actions[None, past - 1 : past - 1 + horizon]


def _dreams(
    values: ActionValues, states: list[State], seeds: int, horizon: int, held: bool
) -> Float[np.ndarray, "state seed sample step"]:
    """Rewards of all dreams; an occupancy model too holds the newest action."""
    rows = [
        np.stack(
            [
                values.rewards(*_before(values, s), _candidate(s, horizon, held), seed)[0].numpy()
                for seed in range(seeds)
            ]
        )
        for s in states
    ]
    return np.stack(rows)


def _before(values: ActionValues, state: State) -> tuple[Tensor, Tensor]:
    past = min(len(state.tokens), values.most_frames)
    end = len(state.tokens)
    return state.tokens[-past:], state.actions[end - past : end - 1]


def _errors(estimate: np.ndarray, states: list[State]) -> Float[np.ndarray, "state seed"]:
    return np.asarray((estimate - np.array([s.value for s in states])[:, None]) ** 2)


def _seconds(values: ActionValues, states: list[State], horizon: int) -> float:
    """CPU seconds of one decision: one state, one candidate."""
    spent = []
    for state in states[:3]:
        start = time.process_time()
        values(*_before(values, state), _candidate(state, horizon, True))
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def plot(found: list[Point], floors: dict[str, float], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for way in dict.fromkeys(point.way for point in found):
        own = sorted((p.seconds, float(p.errors.mean())) for p in found if p.way == way)
        axes.plot(*zip(*own, strict=True), "o-", label=way)
    for name, error in floors.items():
        axes.axhline(error, linestyle=":", color="grey")
        axes.annotate(name, (axes.get_xlim()[1], error), ha="right", va="bottom", fontsize=8)
    axes.set(xscale="log", xlabel="CPU seconds per decision", ylabel="squared error of the value")
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.values", description=__doc__)
    parser.add_argument("occupancy", help="checkpoint of an occupancy model")
    parser.add_argument("model", help="checkpoint of a model that is rolled out")
    parser.add_argument("store", type=Path, help="token store with a column reward")
    parser.add_argument("--states", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    parser.add_argument("--write", action="store_true", help="append to docs/results.md")
    args = parser.parse_args()
    occupancy, other = (load_world_model(name).network for name in (args.occupancy, args.model))
    store, gamma = TokenStore(args.store), occupancy.config.gamma  # type: ignore[attr-defined]
    grid = occupancy.layout.height, occupancy.layout.width
    frames, led = rewarded(store.drives("train"), store.columns.index(REWARD), grid)
    head = fit_rewards(frames, led, store.spec, REWARD_STEPS)
    past = max(occupancy.state_steps, other.config.context_steps)
    states = states_of(store, "test", gamma, args.states, past)
    truth = np.array([state.value for state in states])
    typical = float(led.mean()) / (1 - gamma)
    now = head(torch.stack([s.tokens[-1] for s in states])).numpy() / (1 - gamma)
    floors = {
        "mean of train rewards": float(((typical - truth) ** 2).mean()),
        "reward of the newest frame": float(((now - truth) ** 2).mean()),
    }
    found = list(points(occupancy, other, head, states, args.seeds))
    drives = [state.drive for state in states]
    cells = []
    for point in found:
        error = mean_over_drives(point.errors.mean(1), drives)
        spread = point.errors.mean(0).std(ddof=1) if args.seeds > 1 else 0.0
        cells.append(
            [
                point.way,
                point.budget,
                f"{point.seconds:.3f}",
                interval(vars(error)),
                f"{spread:.2f}",
            ]
        )
    cells += [[f"floor: {name}", "", "", f"{error:.2f}", ""] for name, error in floors.items()]
    head_row = ["way", "budget", "CPU s per decision", "squared error", "std over seeds"]
    text = f"{len(states)} states of {len(set(drives))} test drives, {args.seeds} seeds of sampling"
    report(f"{text}, gamma {gamma:g}\n\n{markdown_table(head_row, cells)}", args.write)
    if args.plot:
        plot(found, floors, args.plot)


if __name__ == "__main__":
    main()
