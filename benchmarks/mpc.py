"""Planning in dreams on CarRacing itself: returns of an agent beside random and scripted driving.

    python -m benchmarks.mpc data/tokens/NAME CHECKPOINT [CHECKPOINT ...] --episodes 4 --write

Tracks are those of no embedded drive. A careful scripted driver starts the car; then every policy
drives from the same state. Random driving takes recorded actions of any situation. All cars of a
policy plan in one batch, on `--device`; candidates are recorded actions, the best one is taken.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

import training  # noqa: F401  (first: it repairs torchvision)
from benchmarks.__main__ import report
from drives.actions.units import REWARD
from drives.carracing.config import PHYSICS_FPS
from drives.carracing.driver import ScriptedDriver
from drives.carracing.simulator import Simulator
from drives.clips.preprocessing import to_pixels
from drives.tokens.store import TokenStore
from tokenizer.load import Tokenizer, load_tokenizer
from training.pages.text_table import markdown_table
from worldmodel.evaluation.intervals import mean_over_drives
from worldmodel.evaluation.report.terminal import interval
from worldmodel.evaluation.values.rewards import (
    CONVOLUTIONS,
    RewardHead,
    fit_rewards,
    rewarded,
)
from worldmodel.load import load_world_model
from worldmodel.planning.config import PlanningConfig
from worldmodel.planning.proposals import RecordedActions
from worldmodel.planning.values import ActionValues
from worldmodel.proving_ground.policies import COMMANDS
from worldmodel.proving_ground.simulated import CAREFUL, FIRST_TRACK, Held

START_S, FRAMES_PER_S = 2.0, 10
REWARD_STEPS = 200
Row = Float[np.ndarray, " action"]


class Episode:
    """A car on an unseen track, under way."""

    def __init__(self, number: int, tokenizer: Tokenizer) -> None:
        self.simulator, self.tokenizer = Simulator(FIRST_TRACK + number), tokenizer
        self.scripted = ScriptedDriver(
            self.simulator.line, CAREFUL, (), np.random.default_rng(number), 0.0, 1 / PHYSICS_FPS
        )
        self.seen: list[tuple[torch.Tensor, Row | None]] = [(self.frame(), None)]
        for _ in range(round(START_S * FRAMES_PER_S)):
            self.step(self.scripted)

    def frame(self) -> torch.Tensor:
        picture = torch.from_numpy(self.simulator.frame(64))
        tokens = self.tokenizer.encode(to_pixels(picture.movedim(-1, 0)[None]))
        return tokens.reshape(tokens.shape[-2:]).cpu()

    def step(self, driver: object) -> float:
        """Drive to the next frame; the rewards on the way."""
        row = self.simulator.advance(driver, PHYSICS_FPS // FRAMES_PER_S)  # type: ignore[arg-type]
        self.seen.append((self.frame(), row))
        return self.simulator.earned


Policy = Callable[[Sequence[Episode]], list[object]]


def driven(episodes: Sequence[Episode], policy: Policy, num_steps: int) -> list[float]:
    """The return of every episode."""
    returns = np.zeros(len(episodes))
    for _ in range(num_steps):
        drivers = policy(episodes)
        returns += [e.step(driver) for e, driver in zip(episodes, drivers, strict=True)]
    return [float(one) for one in returns]


class Planned:
    """Plans for all cars at once: random shooting with recorded actions.

    Attributes:
        spent: seconds of every plan, per car.
    """

    def __init__(
        self, values: ActionValues, proposals: RecordedActions, num: int, device: str
    ) -> None:
        self.values, self.proposals, self.num, self.device = values, proposals, num, device
        self.generator = torch.Generator().manual_seed(0)
        self.spent: list[float] = []

    def __call__(self, episodes: Sequence[Episode]) -> list[object]:
        start, most = time.perf_counter(), self.values.most_frames
        seen = [e.seen[-most:] for e in episodes]
        tokens = torch.stack([torch.stack([frame for frame, _ in one]) for one in seen])
        rows = torch.stack([_rows(one) for one in seen])
        newest = [torch.from_numpy(e.seen[-1][1]) for e in episodes]
        candidates = torch.stack([self.proposals(n, self.num, self.generator) for n in newest])
        several = candidates.shape[1]
        asked = [part.repeat_interleave(several, dim=0).to(self.device) for part in (tokens, rows)]
        seed = int(torch.randint(2**31, (), generator=self.generator))
        worth = self.values(*asked, candidates.flatten(0, 1).to(self.device), seed).cpu()
        best = worth.unflatten(0, (-1, several)).argmax(dim=1)
        self.spent.append((time.perf_counter() - start) / len(episodes))
        chosen = candidates[torch.arange(len(best)), best, 0]
        return [_held(row.numpy()) for row in chosen]


def _held(row: Row) -> Held:
    return Held(row[: len(COMMANDS)].tolist())


def _rows(seen: Sequence[tuple[torch.Tensor, Row | None]]) -> torch.Tensor:
    """Rows between the frames; the first of them led there."""
    rows = [torch.from_numpy(row) for _, row in seen[1:] if row is not None]
    return torch.stack(rows) if rows else torch.empty(0, 0)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.mpc", description=__doc__)
    parser.add_argument("store", type=Path, help="token store of CarRacing with rewards")
    parser.add_argument("models", nargs="*", help="checkpoints to plan with")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--horizon", type=int, default=4)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--stack", type=int, default=3, help="frames that rewards are read from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="append to docs/results.md")
    args = parser.parse_args()
    store, tokenizer = TokenStore(args.store), load_tokenizer("carracing")
    trained = store.drives("train")
    recorded = RecordedActions(trained, args.horizon)
    rng = np.random.default_rng(0)

    @cache
    def head_of(stack: int) -> RewardHead:
        column = store.columns.index(REWARD)
        known = rewarded(trained, column, store.spec.grid[1:], stack, FRAMES_PER_S)
        head = fit_rewards(*known, store.spec, REWARD_STEPS, convolutions=CONVOLUTIONS)
        return head.to(args.device)

    def planning(name: str) -> Planned:
        network = load_world_model(name).network.to(args.device)
        head = head_of(network.sample_steps if network.state_steps else args.stack)
        samples = args.samples * args.horizon if network.state_steps else args.samples
        values = ActionValues(network, head, PlanningConfig().gamma, samples)
        return Planned(values, recorded, args.candidates, args.device)

    def at_random(episodes: Sequence[Episode]) -> list[object]:
        picked = rng.integers(len(recorded.before), size=len(episodes))
        return [_held(row) for row in recorded.before[picked]]

    policies: dict[str, Policy] = {
        "random": at_random,
        "scripted": lambda episodes: [e.scripted for e in episodes],
        **{name: planning(name) for name in args.models},
    }
    cells, numbers = [], [str(number) for number in range(args.episodes)]
    for name, policy in policies.items():
        cars = [Episode(int(number), tokenizer) for number in numbers]
        returns = driven(cars, policy, round(args.seconds * FRAMES_PER_S))
        error = mean_over_drives(returns, numbers)
        cost = f"{np.mean(policy.spent):.3f}" if isinstance(policy, Planned) else ""
        cells.append([name, interval(vars(error)), cost])
        print(*cells[-1], [round(one, 1) for one in returns], flush=True)
    told = f"{args.episodes} unseen tracks of {args.seconds:g} s, {args.candidates} candidates, "
    told += f"a rollout of {args.horizon} frames, {args.samples} per candidate, on {args.device}"
    table = markdown_table(["policy", "return", "s per decision"], cells)
    report(f"MPC on CarRacing: {told}\n\n{table}", args.write)


if __name__ == "__main__":
    main()
