"""Planning in dreams in the simulator itself: returns of an agent beside random and scripted ones.

    python -m benchmarks.mpc data/tokens/NAME CHECKPOINT [CHECKPOINT ...] --episodes 4 --write
    python -m benchmarks.mpc data/tokens/NAME RUN --world cheetah_run --tokenizer RUN

No drive has these episodes. A scripted policy starts each; then every policy goes on from the same
state. The random one takes recorded actions of any situation. All episodes of a policy are planned
in one batch, on `--device`; candidates are recorded actions, the best one is taken.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

import training  # noqa: F401  (first: it repairs torchvision)
from benchmarks.__main__ import report
from benchmarks.returns import SMOOTH_S, Rewards
from benchmarks.worlds.carracing import Tracks
from benchmarks.worlds.control_suite import Stages
from benchmarks.worlds.episode import Episode, Row, World
from drives.actions.units import REWARD
from drives.control_suite.config import TASKS
from drives.tokens.store import TokenStore
from tokenizer.load import load_tokenizer
from training.pages.text_table import markdown_table
from worldmodel.evaluation.intervals import mean_over_drives
from worldmodel.evaluation.report.terminal import interval
from worldmodel.load import load_world_model
from worldmodel.planning.config import PlanningConfig
from worldmodel.planning.proposals import RecordedActions
from worldmodel.planning.values import ActionValues

CARRACING = "carracing"
Policy = Callable[[Sequence[Episode]], Sequence[Row | None]]


def played(episodes: Sequence[Episode], policy: Policy, num_steps: int) -> list[float]:
    """The return of every episode."""
    returns = [0.0] * len(episodes)
    for _ in range(num_steps):
        for number, (episode, row) in enumerate(zip(episodes, policy(episodes), strict=True)):
            returns[number] += episode.play(row)
    return returns


class Planned:
    """Plans for all episodes at once: random shooting with recorded actions.

    Attributes:
        spent: CPU seconds of every plan, per episode.
    """

    def __init__(
        self, values: ActionValues, proposals: RecordedActions, num: int, device: str
    ) -> None:
        self.values, self.proposals, self.num, self.device = values, proposals, num, device
        self.generator = torch.Generator().manual_seed(0)
        self.spent: list[float] = []

    def __call__(self, episodes: Sequence[Episode]) -> Sequence[Row]:
        start, most = time.process_time(), self.values.most_frames
        tokens = torch.stack([torch.stack(e.tokens[-most:]) for e in episodes])
        rows = torch.from_numpy(np.stack([e.rows[-most:] for e in episodes]))
        between = rows[:, rows.shape[1] - tokens.shape[1] + 1 :]
        candidates = torch.stack([self.proposals(r[-1], self.num, self.generator) for r in rows])
        several = candidates.shape[1]
        state, past = (p.repeat_interleave(several, dim=0) for p in (tokens, between))
        asked = (part.to(self.device) for part in (state, past, candidates.flatten(0, 1)))
        seed = int(torch.randint(2**31, (), generator=self.generator))
        worth = self.values(*asked, seed=seed).cpu()
        best = worth.unflatten(0, (-1, several)).argmax(dim=1)
        self.spent.append((time.process_time() - start) / len(episodes))
        return list(candidates[torch.arange(len(best)), best, 0].numpy())


def world_of(name: str, tokenizer: str, fps: float) -> World:
    opened = load_tokenizer(tokenizer)
    return Tracks(opened, fps) if name == CARRACING else Stages(opened, fps, name)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.mpc", description=__doc__)
    parser.add_argument("store", type=Path, help="token store of the world, with rewards")
    parser.add_argument("models", nargs="*", help="checkpoints to plan with")
    parser.add_argument("--world", choices=[CARRACING, *TASKS], default=CARRACING)
    parser.add_argument("--tokenizer", default=CARRACING, help="that of the store")
    parser.add_argument(
        "--smooth", type=float, default=SMOOTH_S, help="seconds of rewards, averaged"
    )
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--horizon", type=int, default=4)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--stack", type=int, default=3, help="frames that rewards are read from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="append to docs/results.md")
    args = parser.parse_args()
    store = TokenStore(args.store)
    world = world_of(args.world, args.tokenizer, store.spec.fps)
    recorded = RecordedActions(store.drives("train"), args.horizon)
    rng = np.random.default_rng(0)

    gamma = PlanningConfig().gamma
    head_of = cache(Rewards(store, store.columns.index(REWARD), gamma, args.smooth).head)

    def planning(name: str) -> Planned:
        network = load_world_model(name).network.to(args.device)
        head, _ = head_of(network.sample_steps if network.state_steps else args.stack)
        samples = args.samples * args.horizon if network.state_steps else args.samples
        values = ActionValues(network, head.to(args.device), gamma, samples)
        return Planned(values, recorded, args.candidates, args.device)

    def at_random(episodes: Sequence[Episode]) -> Sequence[Row]:
        return list(recorded.before[rng.integers(len(recorded.before), size=len(episodes))])

    planners = {name: planning(name) for name in args.models}
    policies: dict[str, Policy] = {
        "random": at_random,
        "scripted": lambda episodes: [None] * len(episodes),
        **planners,
    }
    steps = round(args.seconds * world.fps)
    past = max((planned.values.most_frames for planned in planners.values()), default=1)
    cells, numbers = [], range(args.episodes)
    names, returns = [str(number) for number in numbers], {}
    for name, policy in policies.items():
        episodes = [world.start(number, past) for number in numbers]
        returns[name] = np.array(played(episodes, policy, steps))
        found = returns[name], returns[name] - returns["random"]
        own, more = (interval(vars(mean_over_drives(one, names))) for one in found)
        cost = f"{np.mean(policy.spent):.3f}" if isinstance(policy, Planned) else ""
        cells.append([name, own, more, cost])
        print(*cells[-1], returns[name].round(1), flush=True)
    told = f"{args.episodes} unseen episodes of {args.seconds:g} s, {args.candidates} candidates, "
    told += f"a rollout of {args.horizon} frames, {args.samples} per candidate, on {args.device}"
    table = markdown_table(
        ["policy", "return", "more than random, one by one", "CPU s per decision"], cells
    )
    report(f"MPC on {world.name}: {told}\n\n{table}", args.write)


if __name__ == "__main__":
    main()
