"""Faults of the trainer beneath us that would pass unnoticed; each is kept out by a test."""

import lightning as L
import pytest
import torch

TINY = (
    "+debug=fast",
    "callbacks.media=null",
    "model.network.dim=24",
    "model.network.num_layers=1",
    "data.batch_size=2",
    "max_passes=null",
    "trainer.log_every_n_steps=1",
    "checkpoints.every_steps=1",
    "checkpoints.keep=9",
)


class Watch(L.Callback):
    """Notes the tokens of every batch."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append(batch.tokens.clone())


def seen(fit, cfg):
    watched = Watch()
    _, _, trainer = fit(cfg, watched)
    return watched.batches, trainer


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_three_runs_in_a_row_see_what_one_run_sees(workers, composed, fit, tmp_path):
    """A loader without a length loses a batch per resume; with workers an old shuffle replays.

    Three resumes, across the boundary of an epoch of the data (it is gone through twice).
    """
    few = ("data.source.carracing.num_train=1", "data.source.carracing.seconds=1.0")
    cut = (*TINY, *few, f"data.num_workers={workers}")
    whole, trainer = seen(
        fit, composed("gpt_tiny", *cut, "trainer.max_steps=9", f"run={tmp_path}/a")
    )
    assert len(trainer.datamodule.dataset("train")) < 9 * 2
    assert len(trainer.train_dataloader) == 9
    parts = []
    for steps in (3, 6, 9):
        cfg = composed("gpt_tiny", *cut, f"trainer.max_steps={steps}", f"run={tmp_path}/b")
        batches, _ = seen(fit, cfg)
        assert len(batches) == 3
        parts += batches
    assert same(parts, whole)


def test_asking_for_the_number_of_steps_does_not_drop_the_loaders_state(
    composed, fit, tmp_path, monkeypatch
):
    """Lightning forgets a loader's state if `configure_optimizers` asks for an estimate."""
    whole, _ = seen(fit, composed("gpt_tiny", *TINY, "trainer.max_steps=4", f"run={tmp_path}/a"))
    seen(fit, composed("gpt_tiny", *TINY, "trainer.max_steps=2", f"run={tmp_path}/b"))

    def estimate(self):
        raise AssertionError("the schedule has to come from max_steps")

    monkeypatch.setattr("lightning.Trainer.estimated_stepping_batches", property(estimate))
    rest, _ = seen(fit, composed("gpt_tiny", *TINY, "trainer.max_steps=4", f"run={tmp_path}/b"))
    assert same(rest, whole[2:])


def test_more_steps_after_the_end_are_trained(composed, fit, tmp_path):
    """With `max_epochs=1`, Lightning trains nothing after a resume, and says nothing."""
    cfg = ("trainer.max_steps=2", "trainer.max_steps=5")
    seen(fit, composed("gpt_tiny", *TINY, cfg[0], f"run={tmp_path}/run"))
    batches, trainer = seen(fit, composed("gpt_tiny", *TINY, cfg[1], f"run={tmp_path}/run"))
    assert len(batches) == 3
    assert trainer.global_step == 5
    assert trainer.max_epochs == -1


def test_a_fused_optimizer_is_clipped_under_bf16_mixed(composed, fit):
    """Lightning 2.6 refuses the three together."""
    cut = ("trainer.precision=bf16-mixed", "optimizer.clip_norm=1e-9", "optimizer.weight_decay=0")
    cut = (*cut, "+trainer.limit_val_batches=0")  # a validation drops the gradients
    module, _, trainer = fit(composed("gpt_tiny", *TINY, *cut, "trainer.max_steps=2"))
    assert all(group["fused"] for group in trainer.optimizers[0].param_groups)
    gradients = [p.grad for p in module.network.parameters() if p.grad is not None]
    assert gradients
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
    assert norm <= 1.01e-9
