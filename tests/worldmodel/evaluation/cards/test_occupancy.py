"""The card `occupancy`: bits of the discounted future, values against returns, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.disk.plain_json import finite, to_json
from training.errors import BadInput
from worldmodel.decoding.config import Sampling
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.evaluation.cards import kinds
from worldmodel.evaluation.cards.config import OccupancyCard, TeacherForcedCard
from worldmodel.evaluation.evidence import Evidence
from worldmodel.evaluation.subject import JudgedModel
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import ACTION_NAMES, KnownEntropyWorld
from worldmodel.load import WorldModel

WORLD = KnownEntropyWorld(KnownEntropyConfig(grid=(1, 2, 3), vocab_size=4, resample_prob=0.05))
SHAPE = {"dim": 24, "num_layers": 1, "num_heads": 2, "layout": LayoutConfig("continuous")}
CARD = OccupancyCard(version="x", num_windows=6, num_samples=5, reward_steps=60)


def make_store(root: Path, columns: tuple[str, ...]) -> TokenStore:
    """A step is rewarded where it leads to token 0 in the first cell."""
    writer = TokenStoreWriter(root, WORLD.spec, columns)
    for number, split in enumerate(("train", "test", "test")):
        tokens, actions = WORLD.sample(120, number)
        led = np.append(tokens[1:, 0, 0] == 0, False).astype(np.float32)
        values = {"yaw_rate_rad_s": actions[:, 0], "reward": led}
        writer.write(f"d{number}", split, tokens, np.stack([values[c] for c in columns], 1))
    return TokenStore(root)


def make_subject(store: TokenStore, config: GPTConfig) -> JudgedModel:
    torch.manual_seed(0)
    network = build_dynamics(config, WORLD.spec, 1).eval()
    model = WorldModel(network, WORLD.spec, ACTION_NAMES, Path("model"), {})
    return JudgedModel(model, Evidence(store), "test", "cpu", Sampling(), {})


def test_values_stand_beside_returns_and_floors(tmp_path: Path) -> None:
    store = make_store(tmp_path, ("yaw_rate_rad_s", "reward"))
    assert store.action_names == ACTION_NAMES  # a reward is no action
    subject = make_subject(store, OccupancyConfig(**SHAPE, gamma=0.5))
    kinds.check(subject, CARD, asked=True)
    found = kinds.measure(subject, CARD)
    plain = json.loads(to_json(finite(found.plain())))
    assert plain["scores"]["world model"]["bits_per_token"]["value"] == pytest.approx(2, rel=0.2)
    floors = {"uniform", "mean of train rewards", "reward of the newest frame"}
    assert set(plain["floors"]) == floors
    drive, start = found.names[0].split("@")
    rewards = store.find(drive).columns[int(start) :, 1].astype(float)
    steps = plain["clips"]["steps"] - 1
    expected = sum(0.5**j * rewards[j] for j in range(steps)) / (1 - 0.5**steps)
    assert plain["values"]["returns"][0] == pytest.approx(expected)
    assert plain["values"]["truncated"][0] == pytest.approx(rewards[0] + 0.5 * rewards[1])
    own = np.array(plain["values"]["estimates"])
    errors = (own - np.array(plain["values"]["returns"])) ** 2
    assert plain["scores"]["world model"]["value_error"]["value"] == pytest.approx(errors.mean())
    oracle = plain["scores"]["reward head on the real future"]["value_error"]["value"]
    assert oracle < plain["scores"]["mean of train rewards"]["value_error"]["value"]
    assert plain["reward"] == "reward"


@pytest.mark.slow
def test_rewards_of_changes_are_read_from_stacks(tmp_path: Path) -> None:
    """A step is rewarded where the first cell changes, which no single frame shows."""
    writer = TokenStoreWriter(tmp_path, WORLD.spec, ("yaw_rate_rad_s", "reward"))
    for number, split in enumerate(("train", "train", "test", "test")):
        tokens, actions = WORLD.sample(400, number)
        led = np.append(np.diff(tokens[:, 0, 0].astype(int)) != 0, False).astype(np.float32)
        writer.write(f"d{number}", split, tokens, np.stack([actions[:, 0], led], 1))
    shape = {**SHAPE, "gamma": 0.5, "context_steps": 3}
    lost = []
    for stack in (1, 2):
        subject = make_subject(TokenStore(tmp_path), OccupancyConfig(**shape, stack=stack))
        found = kinds.measure(subject, replace(CARD, num_windows=16, reward_steps=60))
        systems = json.loads(to_json(finite(found.plain())))["scores"]
        assert systems["world model"]["bits_per_token"]["value"] == pytest.approx(2, rel=0.2)
        lost.append(systems["reward head on the real future"]["value_error"]["value"])
    assert lost[1] < 0.3 * lost[0]
    settings = replace(CARD, num_windows=16, reward_steps=60, smooth_s=2.0)
    found = kinds.measure(subject, settings)  # such rewards are no longer seen
    systems = json.loads(to_json(finite(found.plain())))["scores"]
    assert systems["reward head on the real future"]["value_error"]["value"] > 2 * lost[1]


def test_without_rewards_the_bits_remain_and_a_named_reward_is_refused(tmp_path: Path) -> None:
    subject = make_subject(make_store(tmp_path, ACTION_NAMES), OccupancyConfig(**SHAPE, gamma=0.5))
    found = kinds.measure(subject, CARD)
    assert "bits_per_token" in found.systems["world model"]
    assert found.details["lines"][0].startswith("values are not estimated: the data has no rewards")
    with pytest.raises(BadInput, match=r"cards\.occupancy\.reward=reward: .* has no rewards"):
        kinds.check(subject, replace(CARD, reward="reward"), asked=True)
    kinds.check(subject, replace(CARD, reward="yaw_rate_rad_s"), asked=True)


def test_a_return_longer_than_every_drive_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path, ACTION_NAMES)
    with pytest.raises(BadInput, match="longer than every drive"):
        kinds.check(make_subject(store, OccupancyConfig(**SHAPE, gamma=0.99)), CARD, asked=True)


def test_cards_of_next_frames_and_of_the_discounted_future_do_not_mix(tmp_path: Path) -> None:
    store = make_store(tmp_path, ACTION_NAMES)
    occupancy = make_subject(store, OccupancyConfig(**SHAPE))
    with pytest.raises(BadInput, match=r"card=teacher_forced: asks .*=occupancy"):
        kinds.check(occupancy, TeacherForcedCard(version="x"), asked=False)
    gpt = make_subject(store, GPTConfig(**SHAPE))
    with pytest.raises(BadInput, match=r"card=occupancy: .* predicts frame by frame"):
        kinds.check(gpt, CARD, asked=True)
