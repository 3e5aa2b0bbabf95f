"""States of drives whose returns are known, and estimates of these returns without a dream."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from drives.tokens.store import TokenStore
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

MISSING = 0.05  # share of a return's weight that may lie beyond the rewards that are summed
REWARD_STEPS, SMOOTH_S = 200, 1.0


@dataclass(frozen=True)
class State:
    """A frame of a test drive: what came before, what followed, and what was earned.

    Attributes:
        actions: rows from the first frame on, to the last of the future.
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
class Rewards:
    """A column of rewards, and what their return is.

    Attributes:
        smooth_s: seconds over which the mean of rewards is learned; noise of single ones hides
            them.
    """

    store: TokenStore
    column: int
    gamma: float
    smooth_s: float = SMOOTH_S

    @property
    def steps(self) -> int:
        """Rewards of a return."""
        return num_counted(self.gamma, MISSING)

    def states(self, split: str, num: int, past: int) -> list[State]:
        """States, evenly spread over the drives of a split."""
        steps, found = self.steps, []
        drives = self.store.drives(split)
        places = [(d, at) for d in drives for at in range(past - 1, d.num_steps - steps, 7)]
        for index in np.linspace(0, len(places) - 1, num).astype(int):
            drive, at = places[index]
            rewards = drive.columns[at : at + steps, self.column].astype(float)
            tokens = np.asarray(drive.tokens[at - past + 1 : at + 1 + steps], np.int64)
            frames = torch.from_numpy(tokens.reshape(past + steps, -1, tokens.shape[-1]))
            actions = np.array(drive.actions[at - past + 1 : at + steps], np.float32)
            found.append(
                State(
                    drive.id,
                    frames[:past],
                    frames[past:],
                    torch.from_numpy(actions),
                    float(whole_return(rewards, self.gamma)),
                    float(discounted(rewards[: num_truncated(self.gamma)], self.gamma)),
                )
            )
        return found

    def head(self, stack: int) -> tuple[RewardHead, float]:
        """Reads the reward of a stack; and the mean of all rewards of the train drives."""
        span = max(1, round(self.smooth_s / self.store.spec.step_s))
        grid = self.store.spec.grid[1:]
        stacks, led = rewarded(self.store.drives("train"), self.column, grid, stack, span)
        head = fit_rewards(stacks, led, self.store.spec, REWARD_STEPS, convolutions=CONVOLUTIONS)
        return head, float(led.mean())

    def value_head(self, stack: int) -> RewardHead:
        """Reads 1 - gamma of the return from the newest frames: a value function."""
        seen, found = [], []
        long = [d for d in self.store.drives("train") if d.num_steps > self.steps + stack]
        for drive in (d for d in long if not d.damage):
            tokens = torch.from_numpy(np.asarray(drive.tokens, np.int64))
            frames = tokens.view(len(tokens), *self.store.spec.grid[1:])
            led = drive.columns[:-1, self.column].astype(float)  # row t: from frame t on
            windows = np.lib.stride_tricks.sliding_window_view(led, self.steps)[stack - 1 :]
            returns = whole_return(windows, self.gamma) * (1 - self.gamma)
            seen.append(frames.unfold(0, stack, 1).movedim(-1, 1)[: len(returns)])
            found.append(torch.from_numpy(returns).float())
        known = torch.cat(seen), torch.cat(found)
        return fit_rewards(*known, self.store.spec, REWARD_STEPS, convolutions=CONVOLUTIONS)

    def without_dreams(
        self, states: list[State], head: RewardHead, typical: float
    ) -> dict[str, Float[np.ndarray, " state"]]:
        """Estimates; the last one reads the future, and shows what the head loses."""
        stack, share = head.stack, 1 - self.gamma
        now = torch.stack([s.tokens[-stack:] for s in states])
        before = [s.tokens[len(s.tokens) + 1 - stack :] for s in states]
        real = torch.stack([torch.cat([b, s.future]) for b, s in zip(before, states, strict=True)])
        return {
            "floor: mean of train rewards": np.full(len(states), typical / share),
            "floor: reward of the newest frames": head(now)[:, 0].numpy() / share,
            "returns, learned from the newest frames": self.value_head(stack)(now)[:, 0].numpy()
            / share,
            "reward head on the real future": whole_return(head(real).numpy(), self.gamma),
        }
