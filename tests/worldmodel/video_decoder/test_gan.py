"""A one-pass video decoder and a discriminator of neighbouring frames, trained together."""

from typing import Any

import lightning as L
import pytest
import torch

from tokenizer.load import load_tokenizer
from training.checkpoints.folder import newest_first, read_state, read_weights
from training.config import AdamWConfig
from training.errors import BadInput
from training.watch.rows import METRICS_FILE, read_rows
from worldmodel.video_decoder.config import VideoDecoderModuleConfig
from worldmodel.video_decoder.module import VideoDecoderModule
from worldmodel.video_decoder.networks.config import (
    FORWARD,
    INTERPOLATION,
    VIDEO,
    DiffusionDecoderConfig,
    OnePassDecoderConfig,
)
from worldmodel.video_decoder.tasks import draw_tasks, neighbours

SHAPE: dict[str, Any] = {"dim": 16, "num_layers": 1, "num_heads": 2, "patch": 8, "detail": 4}
TINY = (
    "+debug=fast",
    "callbacks.media=null",
    *(f"model.network.{name}={value}" for name, value in SHAPE.items()),
    "model.network.reach=0",
    "model.network.tasks=[video,interpolation,forward]",
    "model.perceptual_weight=0",
    "model.gan_start=2",
    "model.lecam_weight=0.01",
    "model.discriminator_channels=8",
    "model.discriminator_layers=1",
    "data.batch_size=2",
    "trainer.max_steps=4",
    "trainer.accumulate_grad_batches=2",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=4",
    "checkpoints.every_steps=3",
)
OF_GAN = {"g_loss", "gan_weight", "d_loss", "logits_real", "logits_fake", "lecam"}


def module_of(**settings: Any) -> VideoDecoderModule:
    torch.manual_seed(0)
    tokenizer = load_tokenizer("carracing")
    network = OnePassDecoderConfig(**SHAPE, causal=False, tasks=(VIDEO, INTERPOLATION))
    small = {"discriminator_channels": 8, "gan_start": 0, **settings}
    return VideoDecoderModule(network, AdamWConfig(), tokenizer.spec(10.0), tokenizer, **small)


def test_a_discriminator_is_shown_rows_of_neighbours_that_hold_a_frame_that_is_asked_for() -> None:
    frames = torch.arange(5.0).view(1, 5, 1, 1, 1).expand(1, 5, 3, 2, 2)
    given = torch.tensor([[True, True, False, True, True]])
    assert neighbours(frames, given, 1)[:, :, 0, 0].tolist() == [[2.0] * 3]
    pairs = neighbours(frames, given, 2)[:, ::3, 0, 0]
    assert pairs.tolist() == [[1.0, 2.0], [2.0, 3.0]]
    assert neighbours(frames, given, 3)[:, ::3, 0, 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert len(neighbours(frames, torch.zeros_like(given), 3)) == 3


def test_the_last_layers_gradient_is_autograds_and_that_of_frames_that_are_asked_for() -> None:
    network: Any = module_of(gan_weight=0.1).network
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 1000, (2, 7, 8, 8), generator=draw)
    task = draw_tasks(tokens, torch.zeros(2).long(), (FORWARD,), 0.0, draw)
    frames, direction = torch.rand(2, 2, 7, 3, 64, 64, generator=draw)
    assert task.is_given.any()
    made = network.frames(task, frames, None)
    (expected,) = torch.autograd.grad(made, network.join[-1].weight, direction)
    torch.testing.assert_close(
        network.last_layer_gradient(direction, task), expected, rtol=1e-4, atol=1e-4
    )


def test_what_a_weight_of_0_leaves_out_and_what_each_setting_puts_in() -> None:
    plain = module_of()
    assert plain.automatic_optimization
    assert not plain.find_unused_parameters
    assert plain.guards == (plain.guard,)
    assert not [name for name in plain.state_dict() if name.startswith(("discrim", "lecam"))]
    module = module_of(gan_weight=0.1, discriminator_frames=2, lecam_weight=0.01)
    assert not module.automatic_optimization
    assert module.find_unused_parameters
    assert len(module.guards) == 2
    weights = module.state_dict()
    assert weights["discriminator.main.0.weight"].shape[:2] == (8, 6)
    assert "lecam.real" in weights
    assert weights.keys() - plain.state_dict().keys() == {
        name for name in weights if name.startswith(("discriminator.", "lecam."))
    }


class Stop(L.Callback):
    """Dies in the last step, between its two batches."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 7:
            raise InterruptedError


def assert_same(one: Any, two: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for name in one:
            assert_same(one[name], two[name])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    else:
        assert one == two


@pytest.mark.slow
def test_a_run_is_one_without_until_it_joins_and_is_resumed_bit_for_bit(composed, fit) -> None:
    words = [*TINY, "model.gan_weight=0.5"]
    module, alone, trainer = fit(composed("video_decoder_tiny", *words, "run=${paths.runs}/one"))
    assert trainer.global_step == 4
    assert any(
        not torch.equal(a, b)
        for a, b in zip(module.network.parameters(), module.ema.module.parameters(), strict=True)
    )
    cfg = composed("video_decoder_tiny", *words, "run=${paths.runs}/parts")
    with pytest.raises(InterruptedError):
        fit(cfg, Stop())
    _, parts, _ = fit(cfg)
    assert parts.resume_from is not None
    ends = [newest_first(run.folder)[0] for run in (alone, parts)]
    assert {end.name for end in ends} == {"step-0000004"}
    assert_same(*(read_weights(end) for end in ends))
    states = [read_state(end) for end in ends]
    assert len(states[0]["optimizer_states"]) == 2
    assert all(state["state"] for state in states[0]["optimizer_states"])
    for name in ("optimizer_states", "lr_schedulers", "loops"):
        assert_same(states[0][name], states[1][name])

    without = fit(composed("video_decoder_tiny", *TINY, "run=${paths.runs}/without"))[1]
    logged = [
        {row["step"]: row for row in read_rows(run.folder / METRICS_FILE) if "train/loss" in row}
        for run in (alone, without)
    ]
    joined = [step for step, row in logged[0].items() if "train/g_loss" in row]
    assert joined == [3, 4]
    assert all(f"train/{name}" in logged[0][4] for name in OF_GAN)
    assert not any(f"train/{name}" in logged[1][4] for name in OF_GAN)
    losses = [[rows[step]["train/loss"] for step in range(1, 5)] for rows in logged]
    assert losses[0][:3] == losses[1][:3]  # of the third step: before it moves
    assert losses[0][3] != losses[1][3]


def test_what_cannot_work_is_refused() -> None:
    given: dict[str, Any] = {"optimizer": AdamWConfig(), "gan_weight": 0.1}
    with pytest.raises(BadInput, match=r"model\.gan_weight=0\.1: compares frames"):
        VideoDecoderModuleConfig(network=DiffusionDecoderConfig(), **given)
    with pytest.raises(BadInput, match=r"model\.discriminator_frames=9: .* to 7"):
        VideoDecoderModuleConfig(network=OnePassDecoderConfig(), discriminator_frames=9, **given)
