"""Every recipe composes and takes a step; the large ones are cut down, nothing else."""

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from drives.tokens.spec import TokenSpec
from tokenizer.load import Tokenizer
from tokenizer.networks.kinds import build_network
from training.checkpoints.folder import newest_first, read_state
from training.cli import judge, plain
from training.help import composed as composed_config
from training.planner.devices import find_device
from training.planner.plan import Planner
from training.schemas import judged_settings
from training.watch.rows import METRICS_FILE, read_rows

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted(p.stem for p in (ROOT / "configs/experiment").glob("*.yaml"))
ONE_STEP = ["trainer.max_steps=1", "trainer.val_check_interval=1", "trainer.log_every_n_steps=1"]
CUT = {
    "tokenizer": [
        "model.network.image_size=[64,64]",
        "model.network.channels=[16,16,16]",
        "model.network.patch=2",
        "model.loss.perceptual_net=alex",
        "model.loss.gan_start=0",
        "data.batch_size=2",
        "data.num_val_clips=2",
        "data.num_workers=0",
    ],
    "tokenizer_video": [
        "model.network.image_size=[32,32]",
        "model.network.channels=8",
        "model.loss.perceptual_net=alex",
        "model.loss.gan_start=0",
        "data.batch_size=2",
        "data.num_val_clips=2",
        "data.num_workers=0",
    ],
    "musik": [
        "model.network.channels=[8,16]",
        "model.network.num_negatives=15",
        "data.batch_size=2",
        "data.num_val_clips=2",
        "data.num_workers=0",
    ],
    "dino": [
        "model.weights=random",
        "model.network.image_size=[64,64]",
        "model.network.dim=32",
        "model.network.depth=1",
        "model.network.heads=2",
        "data.batch_size=2",
        "data.num_val_clips=2",
        "data.num_workers=0",
    ],
    "gpt": [
        "model.network.dim=48",
        "model.network.num_layers=1",
        "model.network.num_heads=2",
        "data.batch_size=2",
        "data.num_val_windows=2",
        "data.num_workers=0",
    ],
}
CUT["video"] = [
    "model.network.dim=16",
    "model.network.num_layers=1",
    "model.network.num_heads=2",
    "model.network.detail=4",
    "data.tokenizer=carracing",
    "data.batch_size=2",
    "data.num_val_clips=2",
    "data.num_workers=0",
]
CUT["joint"] = [
    "model.tokenizer.channels=[16]",
    "model.tokenizer.patch=8",
    "model.loss.gan_start=0",
    "model.network.dim=48",
    "model.network.num_layers=1",
    "model.network.num_heads=2",
    "model.network.context_steps=5",
    "model.network.horizon=2",
    "data.batch_size=2",
    "data.num_val_clips=2",
    "data.num_workers=0",
]
CUT["whole"] = [*CUT["gpt"], "model.network.num_layers=2"]
CUT["codec"] = CUT["whole"]
CUT["road"] = [*CUT["whole"], "data.tokenizer=carracing"]
CUT["vqkd"] = [*CUT["dino"], "model.network.encoder_depth=1"]
CUT["masked"] = CUT["gpt"]
CUT["occupancy"] = [*CUT["gpt"], "data.tokenizer=carracing"]


def cut_of(experiment: str) -> list[str]:
    video = experiment.startswith("tokenizer_video")
    return CUT["tokenizer_video" if video else experiment.split("_")[0]]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_takes_a_step(experiment, composed, fit):
    cfg = composed(experiment, *ONE_STEP, *cut_of(experiment), "callbacks.media.every_steps=1")
    if "horizon_steps" in cfg.callbacks.media:
        cfg.callbacks.media.horizon_steps = cfg.callbacks.media.num_clips = 1
    _, run, trainer = fit(cfg)
    assert trainer.global_step == 1
    names = {p.name for p in run.folder.iterdir()}
    assert {"config.yaml", "run.json", "metrics.jsonl", "checkpoints", "media"} <= names
    logged = {key for row in read_rows(run.folder / METRICS_FILE) for key in row}
    assert "train/loss" in logged
    assert any(key.startswith("val/") for key in logged)
    assert list((run.folder / "media").rglob("*.png"))


# test_plan.py plans other kinds, and the test below all recipes that were never run.
@pytest.mark.parametrize("experiment", ["musik_tiny", "whole_tiny"])
def test_a_kind_can_be_planned(experiment, composed):
    cfg = composed(experiment, *cut_of(experiment), "plan_device=h200")
    planner = Planner(cfg, *find_device(cfg))
    option = planner.option(planner.asked)
    assert option.fits
    assert option.seconds > 0
    assert option.cost.work.tokens > 0


def header_of(experiment: str) -> str:
    return (ROOT / f"configs/experiment/{experiment}.yaml").read_text().split("name:")[0]


WITH_GAN = [
    e for e in EXPERIMENTS if "gan_start" in (ROOT / f"configs/experiment/{e}.yaml").read_text()
]


@pytest.mark.parametrize("experiment", WITH_GAN)
def test_a_discriminator_joins_before_the_run_ends(experiment, composed):
    cfg = composed(experiment)
    assert cfg.model.loss.gan_start < cfg.trainer.max_steps


EXPECTED = re.compile(
    r"#   expected  by the planner, one H200 in bf16-mixed: ([\d.]+) (MB|GB), ([\d.]+) "
    r"(seconds|minutes|hours) at 40 % of the peak"
)
UNITS = {"MB": 1e6, "GB": 1e9, "seconds": 1, "minutes": 60, "hours": 3600}
TOKENS = {  # of the tokenizers that these recipes ask for: grid, levels, size of frames
    "road_tiny": ((1, 8, 16), (8, 5, 5, 5), (64, 128)),
    "road_base": ((1, 8, 16), (8, 8, 8, 6, 5), (128, 256)),
}
UNRUN = [e for e in EXPERIMENTS if "never run at full size" in header_of(e)]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_states_how_it_was_run(experiment):
    header = header_of(experiment)
    assert "# @package _global_" in header
    assert f"python train.py +experiment={experiment}" in header
    assert "hardware" in header
    assert "TODO" not in header
    if experiment in UNRUN:
        assert EXPECTED.search(header), "says what plan=true expects"
    else:
        assert "result" in header


# The planner counts every token of a bootstrap, which takes a minute.
PLANNED = [e for e in UNRUN if e != "joint_tiny"]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", PLANNED)
def test_a_recipe_that_was_never_run_says_what_the_planner_expects(
    experiment, composed, monkeypatch
):
    if experiment in TOKENS:
        grid, levels, size = TOKENS[experiment]
        spec = TokenSpec(grid, math.prod(levels), 10.0, 1, size, "0" * 64, levels)
        told = SimpleNamespace(spec=lambda fps: replace(spec, fps=fps))
        monkeypatch.setattr("worldmodel.data.load_tokenizer", lambda name: told)
    if experiment == "video_decoder_base":  # asks for a run of tokenizer_base
        asked = plain(composed("tokenizer_base").model.network)
        untrained = Tokenizer(build_network(judged_settings(asked)), "0" * 64, {})
        monkeypatch.setattr("worldmodel.video_decoder.data.load_tokenizer", lambda name: untrained)
    words = ["model.weights=random"] if "vits16" in experiment else []
    cfg = composed(experiment, "plan_device=h200", "trainer.accelerator=gpu", *words)
    planner = Planner(cfg, *find_device(cfg))
    option = planner.option(planner.asked)
    found = EXPECTED.search(header_of(experiment))
    assert found is not None
    size, unit, time, units = found.groups()
    assert sum(option.parts.values()) == pytest.approx(float(size) * UNITS[unit], rel=0.1)
    assert option.seconds * planner.max_steps == pytest.approx(float(time) * UNITS[units], rel=0.1)


OF_EACH_KIND = (
    "gpt_large",
    "masked_tiny",
    "whole_inner_tiny",
    "tokenizer_base",
    "tokenizer_video_base",
    "musik_tiny",
    "vqkd_vits16",
    "video_decoder_tiny",
)


@pytest.mark.parametrize("experiment", OF_EACH_KIND)
def test_every_debug_config_fits_every_kind_of_recipe(experiment):
    for debug in ("fast", "overfit", "profiler"):
        cfg = composed_config("train", [f"+experiment={experiment}", f"+debug={debug}"])
        judge(cfg, "train")
        assert cfg.trainer.max_steps <= 100
        assert cfg.data.batch_size <= 16
        assert not cfg.needs_gpu


@pytest.mark.slow
@pytest.mark.parametrize("experiment", OF_EACH_KIND)
def test_a_fast_debug_run_of_every_kind(experiment, composed, fit):
    cfg = composed(experiment, "+debug=fast", "trainer.max_steps=2", "trainer.profiler=simple")
    _, run, trainer = fit(cfg)
    assert trainer.global_step == 2
    assert "run_training_batch" in (run.folder / "fit-profile.txt").read_text()


@pytest.mark.slow
def test_one_batch_is_learnt_by_heart(composed, fit):
    drives = [f"data.source.carracing.{s}" for s in ("num_train=1", "seconds=2.4")]
    _, run, _ = fit(composed("gpt_tiny", *drives, "+debug=overfit"))
    losses = [
        row["train/loss"] for row in read_rows(run.folder / METRICS_FILE) if "train/loss" in row
    ]
    assert losses[-1] < 0.1 * losses[0]


SLOW = pytest.mark.slow
RESUMED = (  # a run of each kind, of what its steps keep; others differ from one of them in sizes
    "gpt_tiny",
    "musik_tiny",
    pytest.param("gpt_pose_tiny", marks=SLOW),
    pytest.param("masked_tiny", marks=SLOW),
    pytest.param("whole_inner_tiny", marks=SLOW),
    pytest.param("occupancy_tiny", marks=SLOW),
    pytest.param("tokenizer_tiny", marks=SLOW),
    pytest.param("tokenizer_tiny_vq", marks=SLOW),
    pytest.param("tokenizer_video_tiny", marks=SLOW),
    pytest.param("video_decoder_tiny", marks=SLOW),
    pytest.param("vqkd_vits16", marks=SLOW),
)


@pytest.mark.parametrize("experiment", RESUMED)
def test_a_resumed_run_equals_the_one_left_alone_bit_for_bit(experiment, composed, fit):
    """Checkpoints fall on validations, and one of those is cut off."""
    cut = [*cut_of(experiment), "checkpoints.every_steps=3", "checkpoints.keep=9"]
    cut += ["trainer.val_check_interval=3", "trainer.log_every_n_steps=1", "callbacks.media=null"]
    cut += ["trainer.max_steps=8", "max_passes=null", "trainer.precision=32-true"]
    if experiment.startswith(("gpt", "masked", "whole", "road")):
        cut += ["model.network.dropout=0.1", "model.action_dropout=0.5"]
    alone, whole, _ = fit(composed(experiment, *cut, "run=${paths.runs}/alone"))
    cfg = composed(experiment, *cut, "run=${paths.runs}/parts")
    # The schedule must be that of the whole run, so the loop is stopped, not shortened.
    for die in (DieInValidation(), Die(6)):
        with pytest.raises(_Stopped):
            fit(cfg, die)
    resumed, run, trainer = fit(cfg)
    assert run.resume_from is not None
    assert trainer.global_step == 8
    for name, value in alone.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    for a, b in zip(alone.trainer.optimizers, trainer.optimizers, strict=True):
        assert str(a.state_dict()) == str(b.state_dict())
    assert learnt(run.folder) == learnt(whole.folder)
    loops = [read_state(newest_first(folder)[0])["loops"] for folder in (run.folder, whole.folder)]
    assert loops[0] == loops[1]  # Lightning's counts too


def learnt(folder: Path) -> list[dict]:
    """The rows of a run, in their order, without what time they took."""
    rows = read_rows(folder / METRICS_FILE)
    timed = ("time", "perf/", "data/wait", "ckpt/stall")
    kept = [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]
    for row in kept:
        assert "val/loss" not in row or row["step"] % 3 == 0
    return [row for row in kept if "ckpt/step" not in row]


class _Stopped(RuntimeError):
    pass


class Die(L.Callback):
    """Dies inside the loop, one step after `step` was saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step + 1:
            raise _Stopped


class DieInValidation(L.Callback):
    """Dies after the first save, in the validation of its step."""

    def on_validation_batch_end(self, *args):
        raise _Stopped
