"""Dreams that begin, are driven, rewarded and end: what both environments share."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch

from drives.actions.units import DONE, REWARD
from training.errors import BadInput
from training.machine import compute_device
from training.ranges import at_least, one_of, positive
from worldmodel.decoding import Sampling
from worldmodel.env.controls import SPEED
from worldmodel.env.dream import Dream
from worldmodel.env.features import features_of
from worldmodel.env.world import DreamWorld, open_world
from worldmodel.heads.heads import load_heads

OBSERVATIONS = ("pixels", "tokens", "features")
REWARDS = ("none", "speed", "head")
ENDS = ("none", "head")
LIKELY = 0.5  # a chance of the end that ends a dream
# Reward [dream] of the session after a step, and all its action columns.
Reward = Callable[[Dream, np.ndarray], np.ndarray]


class DreamEpisodes:
    """Many dreams in one batch, each of which is an episode.

    Args:
        ckpt: a shipped model, a run folder or a checkpoint folder.
        num_envs: dreams in one batch.
        data_root: drives or tokens whose clips begin the dreams; None: those of the training.
        cache: folder of what is made from drives.
        tokenizer: of the tokens; None: the one of the training.
        split, prompt_steps, actions: as of `open_world`.
        observation: "pixels" (frames of the newest time step), "tokens" (its grid) or "features"
            (`features_of`).
        reward: "speed" (metres driven, by the column `speed_mps`), "head", "none", or a function.
        heads: folder of `python -m worldmodel.heads`; `info` then has what each reads.
        done: "head": an episode ends where the head `done` thinks so; "none": in time alone.
        horizon_s: an episode is truncated after this time.
        sampling: its seed is not used: `reset` draws one.
        decoding: method and options of `open_decoder`.

    Raises:
        BadInput: as of `open_world` and `Dream`, or what the model cannot give.
    """

    def __init__(
        self,
        ckpt: str,
        num_envs: int = 1,
        data_root: str | None = None,
        cache: str = "data",
        tokenizer: str | None = None,
        split: str = "test",
        prompt_steps: int | None = None,
        actions: str = "commands",
        observation: str = "pixels",
        reward: str | Reward = "none",
        heads: str | None = None,
        done: str = "none",
        horizon_s: float = 10.0,
        sampling: Sampling | None = None,
        decoding: Mapping[str, Any] | None = None,
        device: str | None = None,
    ) -> None:
        one_of(OBSERVATIONS, observation=observation)
        one_of(ENDS, done=done)
        at_least(1, num_envs=num_envs)
        positive(horizon_s=horizon_s)
        if not callable(reward):
            one_of(REWARDS, reward=reward)
        data = {"root": data_root, "cache": cache}
        self.world: DreamWorld = open_world(ckpt, data, tokenizer, split, prompt_steps, actions)
        self.dream = self.world.dream(sampling, compute_device(device), **(decoding or {}))
        self.num_envs, self.observation, self.reward, self.done = (
            num_envs,
            observation,
            reward,
            done,
        )
        spec = self.world.model.spec
        self.heads = load_heads(heads, spec, self.names).to(self.dream.device) if heads else None
        self._check_heads(heads)
        self.horizon = max(1, round(horizon_s * self.world.fps))
        if reward == "speed" and SPEED not in self.names:
            raise BadInput(f"reward=speed: the model has no column {SPEED}; give a function")
        if observation == "pixels" and self.world.tokenizer is None:
            raise BadInput(
                f"observation=pixels: the tokens of {self.world.model.path} have no tokenizer with "
                "pixels at hand; give tokenizer=FOLDER, or observation=tokens"
            )
        self.begin(np.random.default_rng(0))
        self.observation_space = self._observation_space()
        self.action_space = self._action_space()

    @property
    def names(self) -> tuple[str, ...]:
        """All action columns of the model."""
        return self.world.controls.names if self.world.controls else ()

    def begin(self, rng: np.random.Generator, start: int | None = None) -> None:
        """Begin all dreams, from a clip by number or from some of the split."""
        self._rng = rng
        starts = [self._drawn(start) for _ in range(self.num_envs)]
        self.dream.start(starts, int(rng.integers(2**31)))
        self.before = np.stack([start.last_action for start in starts])
        self.lengths = np.zeros(self.num_envs, np.int64)

    def restart(self, which: np.ndarray) -> None:
        """Begin some dreams anew."""
        starts = [self._drawn(None) for _ in which]
        self.dream.restart(which.tolist(), starts)
        for place, start in zip(which, starts, strict=True):
            self.before[place] = start.last_action
        self.lengths[which] = 0

    def step(
        self, commands: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Drive all dreams; rewards, which have ended, which are truncated, and facts by name.

        Raises:
            BadInput: commands of another shape, or not finite; nothing has changed then.
        """
        controls, given = self.world.controls, None
        outside = np.zeros((self.num_envs, len(self.names)), bool)
        if controls is not None:
            self.before = controls.complete(controls.checked(commands, self.num_envs), self.before)
            outside = controls.outside(self.before)
            given = torch.from_numpy(self.before)
        step = self.dream.step(given)
        self.lengths += 1
        facts = {
            "outside": outside,
            "actions": self.before.copy(),
            "entropy": step.entropy.mean((1, 2)).cpu().numpy(),
        }
        read = self.heads(self.dream.grids, step.actions) if self.heads else {}
        facts |= {name: value.double().cpu().numpy() for name, value in read.items()}
        ended = facts[DONE] > LIKELY if self.done == "head" else np.zeros(self.num_envs, bool)
        return self._rewards(facts), ended, self.lengths >= self.horizon, facts

    def observe(self) -> np.ndarray:
        """Observations of all dreams."""
        if self.observation == "pixels":
            return self.frames()
        if self.observation == "tokens":
            return self.dream.grids[-1].cpu().numpy()
        features: np.ndarray = features_of(self.dream.decoder).cpu().numpy()
        return features

    def frames(self) -> np.ndarray:
        """The last frame of the newest time step of every dream, [dream h w 3]."""
        return self.dream.frames()[:, -1].permute(0, 2, 3, 1).cpu().numpy()

    def _check_heads(self, folder: str | None) -> None:
        """BadInput where a head is asked for that there is not."""
        names = self.heads.names if self.heads else ()
        asked = {"reward": (self.reward, REWARD), "done": (self.done, DONE)}
        for setting, (value, column) in asked.items():
            if value == "head" and column not in names:
                raise BadInput(
                    f"{setting}=head: heads={folder} has no head {column!r}; give the folder of "
                    "python -m worldmodel.heads"
                )

    def _drawn(self, start: int | None) -> Any:
        number = int(self._rng.integers(len(self.world.starts))) if start is None else start
        return self.world.starts[number]

    def _rewards(self, facts: Mapping[str, np.ndarray]) -> np.ndarray:
        if callable(self.reward):
            return np.asarray(self.reward(self.dream, self.before), np.float64)
        if self.reward == "none":
            return np.zeros(self.num_envs)
        if self.reward == "head":
            return facts[REWARD]
        return self.before[:, self.names.index(SPEED)].astype(np.float64) / self.world.fps

    def _observation_space(self) -> gymnasium.Space[Any]:
        seen = self.observe()[0]
        if self.observation == "pixels":
            return gymnasium.spaces.Box(0, 255, seen.shape, np.uint8)
        if self.observation == "tokens":
            vocab = self.world.model.spec.vocab_size
            return gymnasium.spaces.MultiDiscrete(np.full(seen.shape, vocab))
        return gymnasium.spaces.Box(-np.inf, np.inf, seen.shape, np.float32)

    def _action_space(self) -> gymnasium.Space[Any]:
        controls = self.world.controls
        if controls is None:  # a video: there is one thing to do
            return gymnasium.spaces.Discrete(1)
        places = list(controls.commanded)
        return gymnasium.spaces.Box(controls.low[places], controls.high[places], dtype=np.float32)
