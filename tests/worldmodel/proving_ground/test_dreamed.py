"""Policies in dreams: who drives which dream, prompts from the road, and what is refused."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import NAMES, SPEC, make_world_model

from drives.tokens.drive import TokenDrive
from training.errors import BadInput
from worldmodel.env.controls import controls_of
from worldmodel.heads.heads import FrameHeads
from worldmodel.proving_ground.dreamed import DreamGround, start_of
from worldmodel.proving_ground.policies import DriverView, RoadFollower
from worldmodel.proving_ground.simulated import Driven

COLUMNS = ("steering", "throttle", "brake", "speed_mps")


class NoHead(torch.nn.Module):
    """Reads nothing."""


def ground_of(names: tuple[str, ...] = COLUMNS, **given: Any) -> DreamGround:
    rows = np.random.default_rng(0).uniform(size=(50, len(names))).astype(np.float32)
    controls = controls_of([TokenDrive("a", "train", np.zeros((50, 2, 3)), rows)], names)
    world = SimpleNamespace(model=make_world_model(), controls=controls, tokenizer=object())
    heads = FrameHeads({"reward": NoHead()}, 1, SPEC)  # type: ignore[dict-item]
    fields = {"world": world, "heads": heads, "dream": SimpleNamespace(device="cpu")} | given
    return DreamGround(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("most_dreams", [1024, 5, 1])
def test_every_policy_drives_from_every_start(most_dreams: int, monkeypatch) -> None:
    ground = ground_of(most_dreams=most_dreams)
    batches = []

    def run(choose, starts, steps, seed):  # type: ignore[no-untyped-def]
        batches.append(len(starts))
        frames = torch.zeros(len(starts), 3, 64, 64, dtype=torch.uint8)
        tokens = torch.zeros(len(starts), 2, 8, 8, dtype=torch.long)
        seen = DriverView(frames, tokens, torch.full((len(starts),), 5.0))
        wheel = choose(seen)[:, 0].numpy()
        told = np.stack([wheel, np.array(starts)])[..., None].repeat(steps, -1)
        return np.concatenate([told, np.zeros((3, *told.shape[1:]))])

    monkeypatch.setattr(ground, "run", run)
    policies = [RoadFollower(str(bias), gain=0.0, bias=bias) for bias in (-0.5, 0.0, 0.5)]
    found = ground.drive(policies, [10, 20], 4, 0)  # type: ignore[list-item]
    assert found.rewards.shape == (3, 2, 4)
    assert found.rewards[:, :, 0].tolist() == [[-0.5] * 2, [0.0] * 2, [0.5] * 2]
    assert found.off_road[:, :, 0].tolist() == [[10.0, 20.0]] * 3
    assert max(batches) <= max(2, most_dreams)
    assert sum(batches) == 6


def test_a_dream_begins_where_the_car_was() -> None:
    tokens, rows = np.arange(24).reshape(4, 2, 3), np.arange(12.0).reshape(3, 4)
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    start = start_of(Driven(rows[:, :1], rows[:, :1], frames, tokens, rows), 7)
    assert start.name == "track-7@0"
    assert np.array_equal(start.tokens, tokens)
    assert start.last_action.tolist() == rows[-1].tolist()
    assert len(start.recorded) == 0


def test_what_cannot_be_driven_is_refused() -> None:
    with pytest.raises(BadInput, match="policies need a model that reads steering, throttle"):
        ground_of(NAMES)
    blind = SimpleNamespace(**(vars(ground_of().world) | {"tokenizer": None}))
    with pytest.raises(BadInput, match="policies see pictures"):
        ground_of(world=blind)
    with pytest.raises(BadInput, match="none of the column 'reward'"):
        ground_of(heads=FrameHeads({}, 1, SPEC))
