"""Planning in dreams on CarRacing itself: returns of an agent beside random and scripted driving.

    python -m benchmarks.mpc data/tokens/NAME CHECKPOINT [CHECKPOINT ...] --episodes 4 --write

Tracks are those of no embedded drive. A careful scripted driver starts the car; then every policy
drives from the same state. Random driving takes recorded actions of any situation.
"""

import argparse
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

import training  # noqa: F401  (first: it repairs torchvision)
from benchmarks.__main__ import report
from drives.actions.units import REWARD
from drives.carracing.config import PHYSICS_FPS
from drives.carracing.driver import DriverStyle, ScriptedDriver
from drives.carracing.simulator import Simulator
from drives.clips.preprocessing import to_pixels
from drives.tokens.store import TokenStore
from tokenizer.load import Tokenizer, load_tokenizer
from training.pages.text_table import markdown_table
from worldmodel.evaluation.intervals import mean_over_drives
from worldmodel.evaluation.report.terminal import interval
from worldmodel.evaluation.values.rewards import RewardHead, fit_rewards, rewarded
from worldmodel.load import load_world_model
from worldmodel.planning.agent import PlanningAgent
from worldmodel.planning.config import PlanningConfig
from worldmodel.planning.proposals import RecordedActions
from worldmodel.planning.values import ActionValues

FIRST_TRACK = 10**9  # the seeds of embedded drives are smaller
CAREFUL = DriverStyle(14.0, 6.0, 12.0, 12.0, 0.5, 3.0, 0.0)
START_S, FRAMES_PER_S = 2.0, 10
REWARD_STEPS = 1000
Row = Float[np.ndarray, " action"]


class Controlled:
    """Stands in for the scripted driver: the same pedals and wheel for a whole interval."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def act(self, *_: object) -> tuple[float, float, float]:
        steering, throttle, brake = self.row[:3].tolist()
        return steering, throttle, brake


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


def driven(episode: Episode, choose: Callable[[Episode], object], num_steps: int) -> float:
    return sum(episode.step(choose(episode)) for _ in range(num_steps))


def planned(
    episode: Episode, agent: PlanningAgent, known: dict[int, int], spent: list[float]
) -> Controlled:
    """Show the agent what is new, and ask it."""
    for tokens, row in episode.seen[known.get(id(episode), 0) :]:
        agent.see(tokens, None if row is None else torch.from_numpy(row))
    known[id(episode)] = len(episode.seen)
    start = time.process_time()
    action = agent.act()
    spent.append(time.process_time() - start)
    return Controlled(action.numpy())


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.mpc", description=__doc__)
    parser.add_argument("store", type=Path, help="token store of CarRacing with rewards")
    parser.add_argument("models", nargs="*", help="checkpoints to plan with")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--horizon", type=int, default=4)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--stack", type=int, default=2, help="frames that rewards are read from")
    parser.add_argument("--first", type=int, default=0, help="number of the first track")
    parser.add_argument("--write", action="store_true", help="append to docs/results.md")
    args = parser.parse_args()
    store, tokenizer = TokenStore(args.store), load_tokenizer("carracing")
    trained = store.drives("train")
    numbers = range(args.first, args.first + args.episodes)

    @cache
    def head_of(stack: int) -> RewardHead:
        known = rewarded(trained, store.columns.index(REWARD), store.spec.grid[1:], stack)
        return fit_rewards(*known, store.spec, REWARD_STEPS)

    num_steps, spent = round(args.seconds * FRAMES_PER_S), {}
    recorded = RecordedActions(trained, args.horizon)
    rng = np.random.default_rng(0)
    policies: dict[str, Callable[[int], Callable[[Episode], object]]] = {
        "random": lambda number: (
            lambda episode: Controlled(recorded.before[rng.integers(len(recorded.before))])
        ),
        "scripted": lambda number: lambda episode: episode.scripted,
    }
    for name in args.models:
        spent[name] = []
        policies[name] = partial(_planning, name, args, head_of, recorded, spent[name])
    cells = []
    for name, policy in policies.items():
        returns = [
            driven(Episode(number, tokenizer), policy(number), num_steps) for number in numbers
        ]
        error = mean_over_drives(returns, [str(number) for number in numbers])
        cost = f"{np.mean(spent[name]):.2f}" if spent.get(name) else ""
        cells.append([name, interval(vars(error)), cost])
        print(*cells[-1], [round(one, 1) for one in returns], flush=True)
    told = f"{args.episodes} unseen tracks of {args.seconds:g} s, {args.candidates} candidates"
    table = markdown_table(["policy", "return", "CPU s per decision"], cells)
    report(f"MPC on CarRacing: {told}\n\n{table}", args.write)


def _planning(
    name: str,
    args: argparse.Namespace,
    head_of: Callable[[int], RewardHead],
    recorded: RecordedActions,
    spent: list[float],
    number: int,
) -> Callable[[Episode], object]:
    network = load_world_model(name).network
    head = head_of(network.sample_steps if network.state_steps else args.stack)
    samples = args.samples * args.horizon if network.state_steps else 1  # equally many frames
    config = PlanningConfig(num_candidates=args.candidates, horizon=args.horizon, seed=number)
    values = ActionValues(network, head, config.gamma, samples)
    agent = PlanningAgent(values, recorded, config)
    return partial(planned, agent=agent, known={}, spent=spent)


if __name__ == "__main__":
    main()
