"""Policies in dreams: all policies and all starts in one batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float

from drives.actions.units import OFF_ROAD, REWARD
from drives.clips.preprocessing import to_pixels
from training.errors import BadInput
from worldmodel.env.controls import SPEED, Controls
from worldmodel.env.dream import Dream
from worldmodel.env.starts import Start
from worldmodel.env.world import DreamWorld
from worldmodel.heads.heads import FrameHeads
from worldmodel.proving_ground.policies import COMMANDS, DriverView, Policy
from worldmodel.proving_ground.simulated import Driven

Figures = Float[np.ndarray, "policy start step"]


@dataclass(frozen=True)
class Dreamed:
    """What heads and model say of every step of every dream.

    Attributes:
        rewards: of the head `reward`.
        off_road: of the head `off_road`, NaN without one.
        entropy: nats per token of the distributions that the frame was drawn from.
        drift: share of the frame's tokens that change when its picture is encoded again.
        outside: share of the action columns that are beyond those of the training drives.
    """

    rewards: Figures
    off_road: Figures
    entropy: Figures
    drift: Figures
    outside: Figures


@dataclass
class DreamGround:
    """A world model with its surroundings, as a place to drive in.

    Args:
        dream: a session; its dreams are begun anew by every drive.

    Raises:
        BadInput: a model without the columns that a policy commands, without pictures, or heads
            without a reward.
    """

    world: DreamWorld
    heads: FrameHeads
    dream: Dream
    most_dreams: int = 1024

    def __post_init__(self) -> None:
        path, controls = self.world.model.path, self.world.controls
        if controls is None or {*COMMANDS, SPEED} - set(controls.names):
            needed = ", ".join((*COMMANDS, SPEED))
            raise BadInput(f"ckpt={path}: policies need a model that reads {needed}")
        if self.world.tokenizer is None:
            raise BadInput(f"ckpt={path}: policies see pictures; give tokenizer=FOLDER")
        if REWARD not in self.heads.names:
            raise BadInput(f"heads: there is none of the column {REWARD!r}; train one")
        self.heads.to(self.dream.device)

    @property
    def controls(self) -> Controls:
        assert self.world.controls is not None
        return self.world.controls

    def drive(
        self, policies: Sequence[Policy], starts: Sequence[Start], steps: int, seed: int
    ) -> Dreamed:
        """Every policy from every start; policies go in groups that fit a batch."""
        each = max(1, self.most_dreams // len(starts))
        groups = [policies[at : at + each] for at in range(0, len(policies), each)]
        found = [self._batch(group, starts, steps, seed) for group in groups]
        names = [field.name for field in fields(Dreamed)]
        joined = {name: np.concatenate([getattr(one, name) for one in found]) for name in names}
        return Dreamed(**joined)

    def _batch(
        self, policies: Sequence[Policy], starts: Sequence[Start], steps: int, seed: int
    ) -> Dreamed:
        num, device = len(starts), self.dream.device
        drivers = [policy.driver(num, seed, device) for policy in policies]
        parts = [slice(i * num, (i + 1) * num) for i in range(len(drivers))]

        def choose(seen: DriverView) -> torch.Tensor:
            pairs = zip(drivers, parts, strict=True)
            return torch.cat([driver(seen.part(part)) for driver, part in pairs])

        figures = self.run(choose, [*starts] * len(policies), steps, seed)
        return Dreamed(*(one.reshape(len(policies), num, steps) for one in figures))

    @torch.inference_mode()
    def run(
        self,
        choose: Callable[[DriverView], torch.Tensor],
        starts: Sequence[Start],
        steps: int,
        seed: int,
    ) -> Float[np.ndarray, "figure dream step"]:
        """Dream from every start under what `choose` commands; the figures of `Dreamed`."""
        dream, controls = self.dream, self.controls
        dream.start(starts, seed)
        rows = np.stack([start.last_action for start in starts])
        columns = [list(COMMANDS).index(name) for name in controls.commands]
        speed, frames, told = controls.names.index(SPEED), dream.frames()[:, -1], []
        for _ in range(steps):
            grids = torch.stack(dream.grids[-self.world.model.network.config.context_steps :], 1)
            seen = DriverView(
                frames, grids, torch.from_numpy(rows[:, speed].copy()).to(dream.device)
            )
            rows = controls.complete(choose(seen)[:, columns].cpu().numpy(), rows)
            step = dream.step(torch.from_numpy(rows))
            frames = dream.frames()[:, -1]
            read = self.heads(dream.grids, step.actions)
            off = read.get(OFF_ROAD, torch.full_like(read[REWARD], torch.nan))
            drift = self._drift(frames, step.tokens)
            outside = torch.from_numpy(controls.outside(rows).mean(1)).to(drift)
            figures = [read[REWARD], off, step.entropy.mean((1, 2)), drift, outside]
            told.append(torch.stack(figures).double().cpu().numpy())
        return np.stack(told, -1)

    def _drift(self, frames: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        assert self.world.tokenizer is not None
        again = self.world.tokenizer.encode(to_pixels(frames)).reshape(tokens.shape)
        return (again != tokens).float().mean((1, 2))


def start_of(driven: Driven, track: int) -> Start:
    """The past of a track as the prompt of a dream."""
    tokens = torch.from_numpy(driven.tokens)
    none = driven.tokens[:0]
    return Start(
        f"track-{track}", 0, tokens, torch.from_numpy(driven.rows), none, caption="", lead=none
    )
