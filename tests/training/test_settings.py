"""A setting outside of its range is named before any work, by every command that has it."""

import dataclasses
import importlib
import math
import re

import pytest
from omegaconf import OmegaConf

import hydra_plugins.dashcast_settings  # noqa: F401  (registers the dataclasses)
from training.config import TRAINING, ProgressBarConfig
from training.errors import BadInput
from training.help import CONFIGS
from training.schemas import SCHEMAS
from training.settings import check_settings

ROOMS = ("drives", "tokenizer", "worldmodel", "training")
PASSED_ON = (ProgressBarConfig,)  # whole, to Lightning
NAN = math.nan
WORLD = {
    "trainer.max_steps": [0, -1, "abc", 1.5],
    "trainer.val_check_interval": [0],
    "trainer.log_every_n_steps": [0],
    "trainer.accumulate_grad_batches": [0],
    "trainer.num_nodes": [0],
    "trainer.devices": [0],
    "trainer.precision": ["nonsense", "bf16-true", "16-true", 64],
    "trainer.accelerator": ["nope"],
    "checkpoints.every_steps": [0, -1],
    "checkpoints.keep": [1],
    "max_skipped_steps": [-1, NAN],
    "max_passes": [0, NAN],
    "seed": [-1, "abc"],
    "model.conditions.none": ["abc", -1],
    "model.robustness.self_fed_frames": [1.5],
    "data.encode.every": ["abc"],
    "data.source.actions": [3],
    "callbacks.progress_bar.refresh_rate": [-1],
    "optimizer.lr": [0, NAN],
    "optimizer.clip_norm": [-1, NAN],
    "optimizer.weight_decay": [-1, NAN],
    "optimizer.betas": [[0.9], [0.9, 1.0], [NAN, 0.9]],
    "optimizer.warmup_steps": [-1],
    "optimizer.min_lr_ratio": [2],
    "optimizer.decay_share": [-0.1],
    "data.batch_size": [0, "abc"],
    "data.num_workers": [-1],
    "data.num_val_windows": [0],
    "data.on_corrupt": ["pray"],
    "data.encode.num_workers": [-1],
    "callbacks.media.every_steps": [0],
    "callbacks.media.num_clips": [0],
    "callbacks.media.horizon_steps": [0],
    "data.source.carracing.seconds": [0, NAN],
    "data.source.carracing.seed": [-1],
}
TOKENIZER = {
    "data.num_val_clips": [0],
    "data.clip_frames": [0],
    "data.frames": ["nope"],
    "callbacks.media.num_frames": [0],
    "model.loss.pixel_weight": [-1, NAN],
    "callbacks.doctor.grace_steps": [-1],
}


@pytest.mark.parametrize(
    ("experiment", "bad"), [("gpt_tiny", WORLD), ("tokenizer_tiny", TOKENIZER)]
)
def test_settings_of_training(composed, experiment, bad):
    cfg = composed(experiment)
    check_settings(cfg)
    for key, values in bad.items():
        good = OmegaConf.select(cfg, key)
        for value in values:
            OmegaConf.update(cfg, key, value, merge=False)
            with pytest.raises(Exception, match=key.split(".")[-1]) as caught:
                check_settings(cfg)
            error = caught.value if isinstance(caught.value, BadInput) else caught.value.__cause__
            assert isinstance(error, BadInput), (key, value, caught.value)
        OmegaConf.update(cfg, key, good, merge=False)


MIXTURE = ("data=mixture", "data.source.roots=[a,b]")


@pytest.mark.parametrize(
    ("experiment", "words", "told"),
    [
        ("musik_tiny", ["model.weights=FILE"], "model.weights=FILE: MUSIK has no frozen"),
        ("gpt_tiny", [*MIXTURE, "data.root=here"], "data.root=here: a mixture has several"),
        ("gpt_tiny", [*MIXTURE, "data.source.format=commavq"], "data.source.format=commavq: "),
        ("gpt_tiny", ["data=known_entropy", "data.source.seed=-1"], "data.source.seed=-1: give a"),
    ],
)
def test_what_would_do_nothing_or_end_in_numpy_is_refused(composed, experiment, words, told):
    with pytest.raises(BadInput, match=f"^{re.escape(told)}"):
        check_settings(composed(experiment, *words))


def test_every_setting_is_read():
    """A setting that no code reads promises what it does not do."""
    sources = [file for name in ROOMS for file in (CONFIGS.parent / name).rglob("*.py")]
    code = "\n".join(file.read_text() for file in sources)
    known = {*SCHEMAS.values(), *TRAINING.values()}  # those of tests too
    for settings in (kind for kind in known if kind.__module__.split(".")[0] in ROOMS):
        for field in dataclasses.fields(settings):
            read = rf"(\.|[\"']){field.name}\b"
            assert re.search(read, code) or settings in PASSED_ON, (
                f"{settings.__name__}.{field.name}"
            )


# (module, what it cannot do without, settings and what they refuse)
COMMANDS = [
    (
        "eval",
        ["ckpt=nowhere", "card=[teacher_forced,rollout]"],
        {
            "split": ["nope"],
            "cards.teacher_forced.num_windows": [0],
            "batch_size": [0],
            "cards.rollout.num_clips": [0],
            "cards.rollout.prompt_steps": [0],
            "cards.rollout.horizon_s": [0, -1, "nan"],
            "cards.rollout.num_futures": [0],
            "device": ["nope"],
            "sampling.temperature": [0, "nan"],
        },
    ),
    (
        "tokenizer.compare.command",
        ["carracing"],
        {
            "split": ["nope"],
            "num_clips": [0],
            "clip_frames": [0],
            "video_s": [-1],
            "device": ["nope"],
            "out": ["''", "/proc/x"],
        },
    ),
    (
        "tokenizer.encode",
        ["out=there"],
        {"batch_size": [0], "num_workers": [-1], "device": ["nope"], "out": ["''", "/proc/x"]},
    ),
    ("tokenizer.decode", ["store=nowhere", "drive=a", "out=x"], {"out": ["''", "/proc/x.mp4"]}),
    (
        "tokenizer.convert",
        ["ckpt=nowhere", "tokenizer=taming", "out=x"],
        {"out": ["''", "/proc/x"]},
    ),
    ("worldmodel.convert", ["ckpt=nowhere", "model=genie", "out=x"], {"out": ["''", "/proc/x"]}),
    ("tokenizer.export", ["ckpt=RUN", "out=x"], {"out": ["''", "/proc/x"]}),
    ("training.watch.reference", ["run=nowhere"], {"out": ["''", "/proc/x.png"]}),
    (
        "worldmodel.evaluation.decoding_bench",
        ["ckpt=nowhere"],
        {"num_frames": [1], "repeats": [0], "split": ["nope"], "device": ["nope"]},
    ),
    (
        "worldmodel.rollout",
        ["ckpt=nowhere", "out=there"],
        {"num_clips": [0], "horizon_s": ["nan"], "device": ["nope"], "out": ["''", "/proc/x"]},
    ),
    ("train", ["+experiment=gpt_tiny"], {"run": ["''", "/proc/x", "FILE"], "paths.data": ["FILE"]}),
]


@pytest.mark.parametrize(("name", "needs", "bad"), COMMANDS, ids=[name for name, *_ in COMMANDS])
def test_settings_of_every_command(name, needs, bad, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(CONFIGS.parent))
    (tmp_path / "FILE").write_text("")
    main = importlib.import_module(name).main
    run = str(CONFIGS.parent / "tokenizer/pretrained/carracing")
    for key, values in bad.items():
        for value in values:
            words = [word.replace("RUN", run) for word in needs if not word.startswith(f"{key}=")]
            monkeypatch.setattr("sys.argv", [name, *words, f"{key}={value}"])
            with pytest.raises(SystemExit) as end:
                main()
            shown = capsys.readouterr().err
            assert end.value.code == 2, shown
            assert shown.startswith(f"error: {key.split('.')[0]}"), shown
            assert key in shown, shown
            assert shown.count("\n") == 1, shown
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
