"""Dreams as Gymnasium environments: one, or many that share one batched decoder."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from training.errors import BadInput
from training.ranges import one_of
from worldmodel.env.episodes import DreamEpisodes


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
        rewards, ended, late, facts = self.episodes.step(np.asarray(action)[None])
        info = {name: values[0] for name, values in facts.items()}
        observation = self.episodes.observe()[0]
        return observation, float(rewards[0]), bool(ended[0]), bool(late[0]), info

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
        rewards, ended, late, facts = self.episodes.step(np.asarray(actions))
        begun = np.flatnonzero(self._ended)
        if len(begun):
            self.episodes.restart(begun)
            rewards[begun], ended[begun], late[begun] = 0.0, False, False
        self._ended = ended | late
        told = {f"_{name}": np.ones(self.num_envs, bool) for name in facts}
        return self.episodes.observe(), rewards, ended, late, {**facts, **told}

    def render(self) -> Any:
        """The newest frame of every dream."""
        return tuple(self.episodes.frames()) if self.render_mode else None
