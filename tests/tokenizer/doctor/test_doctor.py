"""Every way to collapse is provoked in a real run, and caught within a stated number of steps."""

import json
from dataclasses import dataclass

import lightning as L
import pytest
import torch

from drives.clips.data_module import Clip
from tokenizer.doctor.callback import Doctor
from tokenizer.quantizers.base import Quantized, Quantizer
from tokenizer.quantizers.config import FSQConfig
from tokenizer.quantizers.kinds import BUILDERS, KINDS
from training.checkpoints.folder import read_weights
from training.disk.status import read_status
from training.errors import BadInput

STEPS = 40
RUN = (
    "+debug=fast",
    "callbacks.media=null",
    "model.network.image_size=[32,32]",
    "model.loss.perceptual_net=''",
    "model.loss.discriminator_channels=8",
    "model.network.attention=false",
    "model.loss.gan_start=20",
    "model.loss.gan_weight=0.1",
    "model.network.quantizer.levels=[4,4]",
    "optimizer.warmup_steps=5",
    f"trainer.max_steps={STEPS}",
    f"trainer.val_check_interval={STEPS}",
    "trainer.log_every_n_steps=10",
    "checkpoints.every_steps=20",
    "checkpoints.keep=9",
    "callbacks.doctor.window=10",
    "callbacks.doctor.grace_steps=20",
    "callbacks.doctor.delay_steps=20",
)


def found(run):
    """Findings of a run folder, in order: (name, step, treatment)."""
    file = run.folder / "doctor.jsonl"
    rows = map(json.loads, file.read_text().splitlines()) if file.exists() else []
    return [(row["name"], row["step"], row["treated"].get("treatment")) for row in rows]


def rows(run, key):
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row[key] for row in map(json.loads, lines) if key in row}


def test_a_healthy_run_has_figures_and_no_findings(composed, fit):
    _, run, _ = fit(composed("tokenizer_tiny", *RUN))
    assert found(run) == []
    assert "findings" not in read_status(run.folder)
    usage = rows(run, "doctor/usage")
    assert list(usage) == list(range(5, STEPS + 1, 5))
    assert 0.3 < usage[STEPS] <= 1.1
    assert list(rows(run, "doctor/gan_ratio")) == list(range(25, STEPS + 1, 5))
    assert rows(run, "doctor/gan_ratio")[STEPS] == pytest.approx(0.1, rel=0.2)
    assert -1 <= rows(run, "doctor/low")[STEPS] < rows(run, "doctor/high")[STEPS] <= 1


def test_frames_in_a_wrong_range_are_found_at_the_first_step(composed, fit, monkeypatch):
    """0..255, 0..1, and scaled twice; where it may act, it stops the run: no treatment helps."""
    pixels = Clip.pixels
    for scale, low in ((127.5, 0.0), (0.5, 0.0), (1 / 127.5, -1.0)):
        monkeypatch.setattr(
            Clip, "pixels", lambda self, scale=scale, low=low: (pixels(self) + 1) * scale + low
        )
        cfg = composed(
            "tokenizer_tiny", *RUN, "trainer.max_steps=1", f"run=${{paths.runs}}/warned{scale}"
        )
        _, run, _ = fit(cfg)
        assert found(run)[0] == ("input_range", 1, None)
        assert read_status(run.folder)["findings"] == ["input_range"]
    with pytest.raises(BadInput, match=r"input_range: .*\[-1, 1\]"):
        fit(
            composed(
                "tokenizer_tiny", *RUN, "callbacks.doctor.treatments=3", "run=${paths.runs}/stopped"
            )
        )


GAN = (*RUN, "model.loss.gan_start=0", "model.loss.gan_weight=1000")


def test_a_huge_gan_from_the_first_step_is_caught_after_one_window(composed, fit, capsys):
    _, run, _ = fit(composed("tokenizer_tiny", *GAN, "trainer.max_steps=16"))
    caught = [f for f in found(run) if f[0] == "gan_dominates"]
    assert caught == [("gan_dominates", 10, None)]  # once, though it never heals
    assert "model.loss.gan_weight=0.2" in capsys.readouterr().out


@pytest.mark.slow
def test_a_huge_gan_is_weakened_and_delayed_and_a_treated_run_resumes_bit_for_bit(composed, fit):
    cut = (*GAN, "callbacks.doctor.treatments=2")
    alone, run, _ = fit(composed("tokenizer_tiny", *cut, "run=${paths.runs}/alone"))
    assert found(run) == [("gan_dominates", 10, "weaken_gan")]
    row = json.loads((run.folder / "doctor.jsonl").read_text())["treated"]
    assert row["rolled_back_to"] == 0
    assert row["changes"]["gan_start"] == alone.loss.gan_start == 30
    assert alone.loss.gan_weight == pytest.approx(0.2, rel=0.2)
    ratio = rows(run, "doctor/gan_ratio")
    assert ratio[10] > 100
    assert ratio[STEPS] < 1
    assert not {15, 20, 25, 30} & set(ratio)  # held back

    cfg = composed("tokenizer_tiny", *cut, "run=${paths.runs}/parts")
    with pytest.raises(_Stopped):
        fit(cfg, Die(at=27))  # after the treatment, in the middle of a window
    resumed, run, trainer = fit(composed("tokenizer_tiny", *cut, "run=${paths.runs}/parts"))
    assert run.resume_from is not None
    assert run.resume_from.endswith("step-0000020")
    assert found(run) == [("gan_dominates", 10, "weaken_gan")]
    for name, value in alone.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    mine, theirs = (m.trainer.callbacks for m in (alone, resumed))
    assert str(doctor(mine).state_dict()) == str(doctor(theirs).state_dict())
    assert trainer.global_step == STEPS


def test_rolling_back_returns_the_weights_of_the_last_healthy_checkpoint(composed, fit):
    """The run was healthy until 20; what breaks then is undone at 30, not only treated."""
    cfg = composed(
        "tokenizer_tiny", *RUN, "trainer.max_steps=30", "callbacks.doctor.treatments=1",
        "model.loss.gan_start=999", "optimizer.lr=1e-7", "callbacks.doctor.limits.min_usage=0",
        "callbacks.doctor.limits.max_variance=99", "callbacks.doctor.limits.min_variance=0.01",
        "callbacks.doctor.grace_steps=10",
    )  # fmt: skip
    module, run, _ = fit(cfg, Squash("decoder", at=20))
    assert found(run) == [("flat_output", 30, "lower_rate")]
    row = json.loads((run.folder / "doctor.jsonl").read_text())["treated"]
    assert row["rolled_back_to"] == 20
    saved = read_weights(run.folder / "checkpoints/step-0000020")
    assert all(torch.equal(v, saved[k]) for k, v in module.state_dict().items())


def doctor(callbacks):
    return next(c for c in callbacks if type(c).__name__ == "Doctor")


class _Stopped(RuntimeError):
    pass


class Die(L.Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.at:
            raise _Stopped


@dataclass(frozen=True)
class FarConfig(FSQConfig):
    """A codebook of which all codes but one are far away from every latent."""

    codes: int = 32


class Far(Quantizer):
    def __init__(self, codes: int) -> None:
        super().__init__()
        self.dim, self.vocab_size = 2, codes
        table = torch.arange(1, codes + 1)[:, None] * torch.tensor([100.0, 100.0])
        table[0] = 0
        self.register_buffer("table", table)

    def forward(self, z):
        indices = self.encode(z)
        codes = self.decode(indices)
        return Quantized(z + (codes - z).detach(), indices, {})

    def encode(self, z):
        flat = torch.cdist(z.reshape(-1, 2).float(), self.table)
        return flat.argmin(-1).reshape(z.shape[:-1])

    def decode(self, indices):
        return self.table[indices]

    def restart(self, dead, z):
        self.table[dead] = z[torch.randint(len(z), (int(dead.sum()),))]
        return True


@pytest.fixture
def far(monkeypatch):
    monkeypatch.delitem(KINDS, "fsq")
    monkeypatch.setitem(KINDS, "far", FarConfig)
    monkeypatch.setitem(BUILDERS, FarConfig, lambda config: Far(config.codes))


def test_dead_codes_are_caught_after_the_grace_and_restarted(composed, fit, far):
    cfg = composed("tokenizer_tiny", *RUN, "trainer.max_steps=30", "callbacks.doctor.treatments=1")
    cfg.model.network.quantizer = {"_target_": f"{FarConfig.__module__}.FarConfig"}
    _, run, _ = fit(cfg)
    assert ("dead_codes", 20, "restart_codes") in found(run)
    usage = rows(run, "doctor/usage")
    assert usage[20] == pytest.approx(1 / 32, rel=0.01)
    assert usage[30] > 0.3


def test_fsq_latents_that_leave_the_grid_unused_are_spread(composed, fit):
    cfg = composed(
        "tokenizer_tiny", *RUN, "model.network.quantizer.levels=[8,8,8]", "optimizer.lr=1e-7",
        "callbacks.doctor.limits.min_variance=0", "callbacks.doctor.treatments=1",
        "trainer.max_steps=30",
    )  # fmt: skip
    _, run, _ = fit(cfg, Squash())
    assert found(run)[0] == ("dead_codes", 20, "restart_codes")
    usage = rows(run, "doctor/usage")
    assert usage[20] < 0.05
    assert usage[30] > 0.3


class Squash(L.Callback):
    """Half of the network says nothing from a step on."""

    def __init__(self, half="encoder", at=0):
        self.half, self.at = half, at

    def on_train_batch_start(self, trainer, module, *args):
        if trainer.global_step == self.at:
            with torch.no_grad():
                last = getattr(module.autoencoder, self.half).conv_out
                last.weight.mul_(1e-3)
                last.bias.zero_()


def test_a_solid_colour_is_found_and_the_rate_is_halved(composed, fit):
    cfg = composed(
        "tokenizer_tiny", *RUN, "trainer.max_steps=22",
        "optimizer.lr=1e-6", "optimizer.schedule=constant",
        "model.loss.gan_start=999", "callbacks.doctor.limits.min_usage=0",
        "callbacks.doctor.treatments=1",
    )  # fmt: skip
    _, run, trainer = fit(cfg, Squash("decoder"))
    assert found(run)[0] == ("flat_output", 20, "lower_rate")
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == [5e-7, 5e-7]
    assert trainer.optimizers[0].param_groups[0]["lr"] == 5e-7


def test_off_means_that_nobody_watches(composed, fit):
    _, run, trainer = fit(
        composed("tokenizer_tiny", *RUN[:-3], "callbacks.doctor=null", "trainer.max_steps=6")
    )
    assert not any(type(c).__name__ == "Doctor" for c in trainer.callbacks)
    assert rows(run, "doctor/usage") == {}
    with pytest.raises(BadInput, match=r"doctor\.window=3"):
        Doctor(window=3)
