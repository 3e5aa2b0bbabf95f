"""Distillation: the codes turn towards a teacher that nothing changes or saves."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from tokenizer.load import load_tokenizer
from tokenizer.losses.config import LossConfig, TeacherConfig, TimmTeacherConfig
from tokenizer.losses.distillation import TEACHERS, Distillation, Teacher, build_teacher
from tokenizer.module import TokenizerModule
from tokenizer.networks.video.config import VideoAutoencoderConfig
from training.checkpoints.folder import newest_first, read_weights
from training.config import AdamWConfig
from training.errors import BadInput

TINY = "test_vit"  # a vision transformer of timm's own tests


@dataclass(frozen=True)
class CellsConfig(TeacherConfig):
    """A small transformer with random weights over the grid's cells."""

    dim: int = 8


class Cells(Teacher):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.embed = nn.Linear(3 * 4 * 4, dim)
        self.layer = nn.TransformerEncoderLayer(dim, 2, 16, dropout=0.5, batch_first=True)

    def forward(self, frames, grid):
        small = F.interpolate(frames, (4 * grid[0], 4 * grid[1]))
        cells = F.pixel_unshuffle(small, 4).flatten(2).mT
        return self.layer(self.embed(cells)).unflatten(1, grid)


def cells(config: CellsConfig) -> Cells:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Cells(config.dim)


@pytest.fixture(autouse=True)
def knows_cells(monkeypatch):
    monkeypatch.setitem(TEACHERS, CellsConfig, cells)


def test_the_term_is_one_minus_the_cosine():
    distillation = Distillation(build_teacher(CellsConfig()), 5)
    codes, frames = torch.randn(2, 4, 4, 5, requires_grad=True), torch.randn(2, 3, 32, 32)
    target = distillation.teacher.network(frames, (4, 4))
    assert torch.equal(target, distillation.teacher.network(frames, (4, 4)))  # no dropout
    projected = distillation.project(codes)
    cosine = (projected * target).sum(-1) / projected.norm(dim=-1) / target.norm(dim=-1)
    loss = distillation(codes, frames)
    torch.testing.assert_close(loss, 1 - cosine.mean())
    loss.backward()
    assert codes.grad.abs().sum() > 0
    assert distillation.project.weight.grad.abs().sum() > 0


def test_the_teacher_is_in_no_optimizer_and_no_checkpoint():
    distillation = Distillation(build_teacher(CellsConfig()), 5).train()
    assert distillation.state_dict().keys() == {"project.weight", "project.bias"}
    assert not distillation.teacher.network.training
    distillation.double()  # but it follows its parent
    assert next(distillation.teacher.network.parameters()).dtype == torch.float64


def test_a_teacher_of_frames_and_a_tokenizer_of_clips_are_refused():
    loss = LossConfig(perceptual_net="", distillation_weight=0.1, teacher=CellsConfig())
    with pytest.raises(BadInput, match=r"distillation_weight=0\.1.*holds several"):
        TokenizerModule(VideoAutoencoderConfig(), loss, AdamWConfig())


def test_a_run_with_a_teacher_learns_from_it(composed, fit):
    cut = [
        "+debug=fast",
        "quantizer=lfq",
        "callbacks.media=null",
        "trainer.max_steps=20",
        "trainer.val_check_interval=20",
        "trainer.log_every_n_steps=1",
        "optimizer.warmup_steps=0",
        "model.loss.perceptual_net=''",
        "model.loss.gan_weight=0",
        "model.loss.distillation_weight=1.0",
        # Only the target is used: without its class's defaults, the group's keys go.
        "~model.loss.teacher",
        f"+model.loss.teacher._target_={__name__}.CellsConfig",
    ]
    module, run, _ = fit(composed("tokenizer_tiny", *cut))
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    distances = [row["train/distillation"] for row in rows if "train/distillation" in row]
    assert sum(distances[-5:]) < 0.8 * sum(distances[:5])
    weights = read_weights(newest_first(run.folder)[0])
    names = [name for name in weights if name.startswith("distillation")]
    assert sorted(names) == ["distillation.project.bias", "distillation.project.weight"]
    frames = torch.rand(2, 3, 64, 64) * 2 - 1
    tokens = load_tokenizer(run.folder).encode(frames)
    assert torch.equal(tokens, module.ema.module.eval().encode(frames))


@pytest.fixture
def weights_file(tmp_path) -> Path:
    """Weights of the tiny network with a classifier on top, as published files have one."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(1)
    state = timm.create_model(TINY, num_classes=7).state_dict()
    save_file(state, tmp_path / "teacher.safetensors")
    torch.save(state, tmp_path / "teacher.pth")
    return tmp_path / "teacher.safetensors"


def test_a_teacher_of_timm_sees_one_patch_per_cell(weights_file):
    teacher = build_teacher(TimmTeacherConfig(TINY, str(weights_file))).eval()
    frames = torch.rand(2, 3, 4 * teacher.patch[0], 6 * teacher.patch[1]) * 2 - 1
    features = teacher(frames, (4, 6))
    assert features.shape == (2, 4, 6, teacher.dim)
    normalised = ((frames + 1) / 2 - teacher.mean) / teacher.std
    tokens = teacher.network.forward_features(normalised)[:, teacher.network.num_prefix_tokens :]
    torch.testing.assert_close(features.flatten(1, 2), tokens, atol=1e-4, rtol=0)
    assert teacher(frames, (2, 3)).shape == (2, 2, 3, teacher.dim)  # resized to fewer cells


def test_weights_come_from_files_and_packages(weights_file, monkeypatch):
    package = weights_file.parent / "teacher_weights_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "vit.pth").write_bytes(weights_file.with_suffix(".pth").read_bytes())
    monkeypatch.syspath_prepend(str(weights_file.parent))
    teachers = [
        build_teacher(TimmTeacherConfig(TINY, weights)).state_dict()
        for weights in (
            str(weights_file),
            str(weights_file.with_suffix(".pth")),
            "package:teacher_weights_package/vit.pth",
        )
    ]
    for other in teachers[1:]:
        assert all(torch.equal(value, other[name]) for name, value in teachers[0].items())


def test_weights_that_do_not_fit_are_refused(weights_file, tmp_path):
    state = torch.load(weights_file.with_suffix(".pth"), weights_only=True)
    name = next(key for key in state if "blocks" in key)
    save_file({k: v for k, v in state.items() if k != name}, tmp_path / "less.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    torch.save(CellsConfig(), tmp_path / "object.pth")
    for weights, message in (
        (tmp_path / "less.safetensors", f"lacks {name}"),
        (tmp_path / "broken.safetensors", "cannot be read"),
        (tmp_path / "object.pth", "cannot be read"),
        (tmp_path / "absent.pth", "no such file"),
        ("package:no_such_package_here/vit.pth", "no_such_package_here is not installed"),
    ):
        with pytest.raises(BadInput, match=message):
            build_teacher(TimmTeacherConfig(TINY, str(weights)))


def test_names_that_timm_cannot_make_are_refused():
    pytest.importorskip("timm")
    for name in ("vit_of_nobody", "test_resnet"):
        with pytest.raises(BadInput, match=rf"model\.loss\.teacher={name}"):
            build_teacher(TimmTeacherConfig(name, "unused.pth"))


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match=r"pip install 'dashcast\[teachers\]'"):
        build_teacher(TimmTeacherConfig())
