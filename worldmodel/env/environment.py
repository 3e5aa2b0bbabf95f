"""Dreams as Gymnasium environments: one, or many that share one batched decoder."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from training.errors import BadInput
from training.machine import compute_device
from training.ranges import at_least, one_of, positive
from worldmodel.decoding import Sampling
from worldmodel.env.controls import SPEED
from worldmodel.env.dream import Dream
from worldmodel.env.features import features_of
from worldmodel.env.world import DreamWorld, open_world

OBSERVATIONS = ("pixels", "tokens", "features")
REWARDS = ("none", "speed")
# Reward [dream] of the session after a step, and all its action columns.
Reward = Callable[[Dream, np.ndarray], np.ndarray]


class DreamEpisodes:
    """Dreams that begin, are driven and end; what both environments share.

    Args:
        ckpt: a shipped model, a run folder or a checkpoint folder.
        num_envs: dreams in one batch.
        data_root: drives or tokens whose clips begin the dreams; None: those of the training.
        cache: folder of what is made from drives.
        tokenizer: of the tokens; None: the one of the training.
        split, prompt_steps, actions: as of `open_world`.
        observation: "pixels" (frames of the newest time step), "tokens" (its grid) or "features"
            (`features_of`).
        reward: "speed" (metres driven, by the column `speed_mps`), "none", or a function.
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
        horizon_s: float = 10.0,
        sampling: Sampling | None = None,
        decoding: Mapping[str, Any] | None = None,
        device: str | None = None,
    ) -> None:
        one_of(OBSERVATIONS, observation=observation)
        at_least(1, num_envs=num_envs)
        positive(horizon_s=horizon_s)
        if not callable(reward):
            one_of(REWARDS, reward=reward)
        data = {"root": data_root, "cache": cache}
        self.world: DreamWorld = open_world(ckpt, data, tokenizer, split, prompt_steps, actions)
        self.dream = self.world.dream(sampling, compute_device(device), **(decoding or {}))
        self.num_envs, self.observation, self.reward = num_envs, observation, reward
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

    def step(self, commands: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Drive all dreams; rewards, which are truncated, and facts by name.

        Raises:
            BadInput: commands of another shape, or not finite; nothing has changed then.
        """
        controls, given = self.world.controls, None
        outside = np.zeros((self.num_envs, len(self.names)), bool)
        if controls is not None:
            self.before = controls.complete(self._checked(commands), self.before)
            outside = controls.outside(self.before)
            given = torch.from_numpy(self.before)
        step = self.dream.step(given)
        self.lengths += 1
        facts = {
            "outside": outside,
            "actions": self.before.copy(),
            "entropy": step.entropy.mean((1, 2)).cpu().numpy(),
        }
        return self._rewards(), self.lengths >= self.horizon, facts

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

    def _checked(self, commands: Any) -> np.ndarray:
        controls = self.world.controls
        assert controls is not None
        given, needed = np.asarray(commands, np.float32), (self.num_envs, len(controls.commanded))
        if given.shape != needed:
            raise BadInput(
                f"actions are {list(given.shape)}; give {list(needed)}: "
                f"{', '.join(controls.commands)} of every dream"
            )
        if not np.isfinite(given).all():
            raise BadInput("actions hold NaN or infinity; give finite numbers")
        return given

    def _drawn(self, start: int | None) -> Any:
        number = int(self._rng.integers(len(self.world.starts))) if start is None else start
        return self.world.starts[number]

    def _rewards(self) -> np.ndarray:
        if callable(self.reward):
            return np.asarray(self.reward(self.dream, self.before), np.float64)
        if self.reward == "none":
            return np.zeros(self.num_envs)
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


class DreamEnv(gymnasium.Env[Any, Any]):
    """One dream; arguments as of `DreamEpisodes`.

    `reset(seed=..., options={"start": NUMBER})` begins with a clip of the split; without a number
    the seed chooses. Action columns have the names `action_names`; the bounds are those of the
    training drives, and `info["outside"]` tells which columns are beyond them. `info["entropy"]` is
    the model's uncertainty, nats per token.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's)

    def __init__(self, ckpt: str, render_mode: str | None = None, **settings: Any) -> None:
        one_of((None, *self.metadata["render_modes"]), render_mode=render_mode)
        self.episodes = DreamEpisodes(ckpt, **settings)
        if render_mode and self.episodes.world.tokenizer is None:
            raise BadInput(
                f"render_mode={render_mode}: there is no tokenizer; give tokenizer=FOLDER"
            )
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": self.episodes.world.fps}
        self.observation_space = self.episodes.observation_space
        self.action_space = self.episodes.action_space

    @property
    def action_names(self) -> tuple[str, ...]:
        """What the entries of an action are."""
        controls = self.episodes.world.controls
        return controls.commands if controls else ()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes.begin(self.np_random, (options or {}).get("start"))
        return self.episodes.observe()[0], {"start": self.episodes.dream.starts[0].name}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        rewards, ended, facts = self.episodes.step(np.asarray(action)[None])
        info = {name: values[0] for name, values in facts.items()}
        return self.episodes.observe()[0], float(rewards[0]), False, bool(ended[0]), info

    def render(self) -> Any:
        """The newest frame, [h w 3]."""
        return self.episodes.frames()[0] if self.render_mode else None


class DreamVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Many dreams in one batch; arguments as of `DreamEpisodes`, and facts as of `DreamEnv`.

    A dream that ended begins anew in the next step, whose action it ignores.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self, ckpt: str, num_envs: int = 1, render_mode: str | None = None, **settings: Any
    ) -> None:
        one_of((None, *self.metadata["render_modes"]), render_mode=render_mode)
        self.episodes = DreamEpisodes(ckpt, num_envs, **settings)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.metadata = {**self.metadata, "render_fps": self.episodes.world.fps}
        self.single_observation_space = self.episodes.observation_space
        self.single_action_space = self.episodes.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes.begin(self.np_random, (options or {}).get("start"))
        self._ended[:] = False
        names = np.array([start.name for start in self.episodes.dream.starts], object)
        return self.episodes.observe(), {"start": names, "_start": np.ones(self.num_envs, bool)}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rewards, ended, facts = self.episodes.step(np.asarray(actions))
        begun = np.flatnonzero(self._ended)
        if len(begun):
            self.episodes.restart(begun)
            rewards[begun], ended[begun] = 0.0, False
        self._ended = ended.copy()
        told = {f"_{name}": np.ones(self.num_envs, bool) for name in facts}
        none = np.zeros(self.num_envs, bool)
        return self.episodes.observe(), rewards, none, ended, {**facts, **told}

    def render(self) -> Any:
        """The newest frame of every dream."""
        return tuple(self.episodes.frames()) if self.render_mode else None
