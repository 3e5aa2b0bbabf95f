"""`dashcast/Dream-v0`: Gymnasium's own check, bounds, seeds, starts, and many dreams in a batch."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from tiny_world import driven, write_world

import worldmodel.env
from drives.tokens.drive import TokenDrive
from training.errors import BadInput
from worldmodel.env.controls import controls_of

NAME = worldmodel.env.ENVIRONMENT


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Any:
    """`made("gpt", ...)`: an environment of a tiny model."""
    folder: Path = tmp_path_factory.mktemp("world")
    places: dict[str, tuple[str, str]] = {}

    def make(kind: str = "gpt", num: int = 0, **settings: Any) -> Any:
        acts = "none" if kind == "whole_inner" else "continuous"
        if kind not in places:
            places[kind] = write_world(folder, kind, actions=acts)
        ckpt, root = places[kind]
        given = {"ckpt": ckpt, "data_root": root, "observation": "tokens", "horizon_s": 0.5}
        if num:
            return gymnasium.make_vec(NAME, num, "vector_entry_point", **given | settings)
        return gymnasium.make(NAME, **given | settings)

    return make


@pytest.mark.parametrize("kind", ["gpt", "whole", "whole_inner", "masked"])
def test_gymnasium_s_check_passes(made, kind: str) -> None:
    observations = ["tokens"] if kind == "masked" else ["tokens", "features"]
    for observation in observations:
        env = made(kind, observation=observation)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*(infinity|render|Box).*")
            check_env(env.unwrapped, skip_render_check=True)


def test_actions_are_the_commands_within_the_range_of_the_training(made) -> None:
    env = made().unwrapped
    assert env.action_names == ("steering", "throttle")  # the speed follows
    assert np.allclose(env.action_space.low, [-1, 0], atol=0.1)
    assert np.allclose(env.action_space.high, [1, 1], atol=0.1)
    env.reset(seed=0)
    *_, inside = env.step(np.array([0.5, 0.5], np.float32))
    *_, outside = env.step(np.array([7.0, 0.5], np.float32))
    assert inside["outside"].tolist() == [False, False, False]
    assert outside["outside"].tolist() == [True, False, False]
    assert outside["actions"][0] == 7.0
    every = made(actions="all").unwrapped
    assert every.action_names == ("steering", "throttle", "speed_mps")


def test_what_is_measured_follows_the_commands() -> None:
    rng = np.random.default_rng(0)
    rows = driven(rng, 300)
    drives = [TokenDrive("a", "train", np.zeros((300, 2, 3)), rows)]
    controls = controls_of(drives, ("steering", "throttle", "speed_mps"))
    found = controls.complete(rows[1:, :2], rows[:-1])
    assert np.allclose(found, rows[1:], atol=0.05)
    fast = controls.complete(np.array([[0.0, 1.0]]), np.array([[0.0, 1.0, 99.0]]))
    assert fast[0, 2] == controls.high[2]  # never faster than any drive


def test_a_seed_gives_a_dream_again_and_another_seed_another(made) -> None:
    env = made()

    def dream(seed: int, turn: float) -> tuple[str, np.ndarray]:
        _, info = env.reset(seed=seed)
        seen = [env.step(np.array([turn, 0.5], np.float32))[0] for _ in range(4)]
        return info["start"], np.stack(seen)

    assert np.array_equal(dream(1, 0.5)[1], dream(1, 0.5)[1])
    assert not np.array_equal(dream(1, 0.5)[1], dream(2, 0.5)[1])
    assert not np.array_equal(dream(1, 1.0)[1], dream(1, -1.0)[1])


def test_it_begins_with_clips_of_the_split_and_ends_in_time(made) -> None:
    env = made(reward="speed")
    assert env.reset(seed=0)[1]["start"].startswith("c@")
    observation, info = env.reset(options={"start": 5})
    assert info["start"] == "c@5"
    assert np.array_equal(observation, env.unwrapped.episodes.world.starts[5].tokens[-1])
    ends = [env.step(env.action_space.sample()) for _ in range(5)]
    assert [end[3] for end in ends] == [False] * 4 + [True]
    assert ends[-1][1] == pytest.approx(ends[-1][4]["actions"][2] / 10)
    assert made(split="train").reset(seed=0)[1]["start"][0] in "ab"


def test_many_dreams_begin_anew_by_themselves(made) -> None:
    env = made(num=3, reward="speed", decoding={"slide_steps": 1})
    assert env.action_space.shape == (3, 2)

    def ride(num: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        _, info = env.reset(seed=4)
        assert len(info["start"]) == 3
        ended = []
        for _ in range(num):
            observation, rewards, _, over, info = env.step(np.zeros((3, 2), np.float32))
            ended.append(over)
            assert info["_outside"].all()
        return observation, ended, rewards

    observation, ended, rewards = ride(6)
    assert env.observation_space.contains(observation)
    assert [over.all() for over in ended] == [False] * 4 + [True, False]
    assert not rewards.any()  # the step in which they begin anew
    assert np.array_equal(observation, ride(6)[0])
    starts = env.unwrapped.episodes.dream.starts
    assert np.array_equal(observation[0], starts[0].tokens[-1])


def test_a_reward_may_be_a_function(made) -> None:
    env = made(reward=lambda dream, actions: actions[:, 0] + dream.num_imagined)
    env.reset(seed=0)
    assert env.step(np.array([0.25, 0.0], np.float32))[1] == 1.25


def test_a_model_without_actions_has_one_thing_to_do(made) -> None:
    env = made("whole_inner")
    assert env.action_space == gymnasium.spaces.Discrete(1)
    env.reset(seed=0)
    assert env.step(0)[4]["entropy"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observation": "smells"}, "observation='smells': choose one of"),
        ({"observation": "pixels"}, "give tokenizer=FOLDER, or observation=tokens"),
        ({"render_mode": "rgb_array"}, "give tokenizer=FOLDER"),
        ({"reward": "fame"}, "reward='fame': choose one of"),
        ({"actions": "some"}, "actions='some': choose one of"),
        ({"prompt_steps": 9}, "prompt_steps=9: the context of"),
        ({"prompt_steps": 0}, "prompt_steps=0: give a whole number from 1 on"),
        ({"prompt_steps": -3}, "prompt_steps=-3: give a whole number from 1 on"),
        ({"horizon_s": 0}, "horizon_s=0"),
    ],
)
def test_refuses(made, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        made(**settings)


@pytest.mark.parametrize("kind", ["masked", "keyframes"])
def test_refuses_features_of_a_kind_without(made, kind: str) -> None:
    with pytest.raises(BadInput, match=f"observation=features: a {kind.title()} gives none"):
        made(kind, observation="features")


def test_actions_that_do_not_fit_change_nothing(made) -> None:
    env, told = made().unwrapped, r"actions are \[1, 1\]; give \[1, 2\]: steering, throttle"
    many = made(num=3).unwrapped
    many.reset(seed=0)
    with pytest.raises(BadInput, match=r"actions are \[2\]; give \[3, 2\]"):  # of all at once
        many.step(np.zeros(2, np.float32))
    seen = []
    for wrong in (False, True):
        env.reset(seed=0)
        if wrong:
            with pytest.raises(BadInput, match="actions hold NaN or infinity"):
                env.step(np.full(2, np.nan, np.float32))
            with pytest.raises(BadInput, match=told):
                env.step(np.zeros(1, np.float32))
        seen.append([env.step(np.full(2, 0.5, np.float32))[4]["actions"] for _ in range(2)])
    assert np.array_equal(seen[0], seen[1])
