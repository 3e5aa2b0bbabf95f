"""Training an occupancy model: resumed bit for bit, and a GPT where nothing is discounted."""

import shutil
from pathlib import Path

import pytest
import torch
from killed_runs import assert_same

from training.checkpoints.folder import newest_first, read_state, read_weights
from training.config import AdamWConfig
from training.errors import BadInput
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import KnownEntropyWorld
from worldmodel.load import load_world_model
from worldmodel.module import WorldModelModule
from worldmodel.windows import TokenClip

CUT = [
    "model.network.dim=24",
    "model.network.num_layers=1",
    "model.network.num_heads=2",
    "model.network.context_steps=3",
    "data.batch_size=4",
    "data.num_val_windows=2",
    "trainer.max_steps=4",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=4",
    "trainer.precision=32-true",
    "checkpoints.every_steps=2",
    "callbacks.media=null",
    "max_passes=null",
]


@pytest.fixture
def trained(composed, fit, tmp_path: Path):
    """`trained("name", *overrides)`: the run folder."""
    world = KnownEntropyWorld(KnownEntropyConfig(grid=(1, 2, 3)))
    world.write_store(tmp_path / "store", num_train=2, num_test=1, steps=40, seed=0)

    def make(name: str, *overrides: str) -> Path:
        data = ["data=tokens", f"data.root={tmp_path}/store", f"run={tmp_path}/{name}"]
        return fit(composed("gpt_tiny", *data, *CUT, *overrides))[1].folder

    return make


def test_a_resumed_run_is_the_run_left_alone(trained, tmp_path: Path) -> None:
    """Both networks, the optimizer and the generators that draw the bootstraps, bit for bit."""
    alone = trained("alone", "model=occupancy", "model.network.gamma=0.9")
    again = tmp_path / "again"
    shutil.copytree(alone, again)
    shutil.rmtree(newest_first(again)[0])
    assert newest_first(again)[0].name == "step-0000002"
    trained("again", "model=occupancy", "model.network.gamma=0.9")
    one, two = newest_first(alone)[0], newest_first(again)[0]
    assert one.name == two.name == "step-0000004"
    weights = read_weights(one)
    assert_same(weights, read_weights(two))
    states = [read_state(path) for path in (one, two)]
    for state in states:
        state["callbacks"] = {k: v for k, v in state["callbacks"].items() if "Throughput" not in k}
    assert_same(states[0], states[1])
    follows = "network.target.embed.weight"
    assert not torch.equal(weights[follows], weights["network.online.embed.weight"])
    assert not torch.equal(weights[follows], read_weights(newest_first(alone)[1])[follows])
    opened = load_world_model(alone).network
    assert torch.equal(opened.target.embed.weight, weights[follows])


@pytest.mark.slow
def test_without_discount_a_training_is_that_of_a_gpt_to_the_digit(trained) -> None:
    gpt = read_weights(newest_first(trained("gpt"))[0])
    ours = read_weights(
        newest_first(trained("ours", "model=occupancy", "model.network.gamma=0"))[0]
    )
    online = {k.replace(".online.", "."): v for k, v in ours.items() if ".online." in k}
    assert_same(gpt, online)


def test_gradients_of_accumulated_batches_are_summed_on_request(monkeypatch) -> None:
    losses = []
    for summed in (False, True):
        torch.manual_seed(0)
        world = KnownEntropyWorld(KnownEntropyConfig(grid=(1, 2, 3)))
        config = OccupancyConfig(dim=24, num_layers=1, num_heads=2)
        module = WorldModelModule(
            config, AdamWConfig(), world.spec, ("yaw",), sum_accumulated=summed
        )
        module.accumulate = 2  # Lightning divides the loss by it
        monkeypatch.setattr(module, "log", lambda *_, **__: None)
        tokens = torch.randint(0, 8, (2, 2, 2, 3), generator=torch.Generator().manual_seed(1))
        losses.append(module.training_step(TokenClip(tokens, torch.zeros(2, 2, 1)), 0))
    assert torch.equal(losses[1], 2 * losses[0])


def test_drives_shorter_than_a_state_and_its_next_frame_are_refused(trained) -> None:
    with pytest.raises(BadInput, match="windows of 41 steps are longer than every drive"):
        trained("short", "model=occupancy", "model.network.context_steps=41")


def test_it_cannot_be_sharded(trained) -> None:
    with pytest.raises(BadInput, match="trainer=fsdp: this model samples from a second network"):
        trained("sharded", "model=occupancy", "trainer=fsdp", "optimizer=adamw")
