"""What a run logs: one row at a time, with everything in it."""

import csv
import json
import time

import lightning as L
import pytest
from hydra.errors import ConfigCompositionException
from lightning.pytorch.loggers.logger import DummyLogger

from training.disk.status import read_status
from training.errors import BadInput
from training.settings import check_settings
from training.watch.workspace import AXIS, SECTIONS, build

HERE = "tests.training.watch.test_loggers"
CUT = (
    "+debug=fast",
    "callbacks.media=null",
    "trainer.log_every_n_steps=2",
)
EVERY_ROW = {
    "train/loss",
    "train/bits_per_token",
    "train/grad_norm",
    "train/lr",
    "perf/tokens_per_s",
    "perf/frames_per_s",
    "perf/step_time_s",
    "perf/mfu",
    "perf/mfu_causal",
    "perf/peak_memory_gb",
    "perf/goodput",
    "data/wait_share",
    "data/corrupt_samples",
}


def test_every_row_says_what_is_learnt_how_fast_and_from_where(composed, fit):
    _, run, _ = fit(composed("gpt_tiny", *CUT, "trainer.max_steps=10"))
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    learnt = [row for row in rows if "train/loss" in row]
    assert [row["step"] for row in learnt] == [2, 4, 6, 8, 10]
    assert [row["step"] for row in rows if "val/loss" in row] == [10]
    for row in learnt:
        assert row.keys() >= EVERY_ROW
        assert row["perf/mfu_causal"] < row["perf/mfu"]
        assert 0 < row["perf/goodput"] <= 1
        assert row["perf/peak_memory_gb"] > 0.1
    status = read_status(run.folder)
    assert (status["state"], status["step"], status["attempts"]) == ("finished", 10, 1)
    assert status["metrics"]["val/loss"] == rows[-1]["val/loss"]


@pytest.mark.slow
def test_the_saved_workspace_shows_only_what_is_logged(composed, fit, tmp_path):
    logged = {"train/skipped_steps", "rollout/clips", "rollout/reconstructions"}
    cuts = {
        "gpt_tiny": ("+debug=fast",),
        "tokenizer_tiny": ("+debug=fast", "model.loss.gan_start=1"),
    }
    for recipe, cut in cuts.items():
        steps = ("trainer.max_steps=10", "trainer.log_every_n_steps=5", "callbacks.media=null")
        _, run, _ = fit(composed(recipe, *cut, *steps))
        lines = (run.folder / "metrics.jsonl").read_text().splitlines()
        logged |= {key for line in lines for key in json.loads(line)}
    shown = {metric for panels in SECTIONS.values() for panel in panels for metric in panel}
    assert shown <= logged
    model = build("me", "dashcast")._to_model().model_dump_json()
    assert all(metric in model for metric in (*shown, AXIS))


def test_throughput_figures_are_consistent(composed, fit):
    cut = [
        "+debug=fast",
        "trainer.max_steps=10",
        "trainer.log_every_n_steps=5",
        "callbacks.media=null",
    ]
    cfg = composed("gpt_tiny", *cut)
    _, run, _ = fit(cfg)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    perf = [row for row in rows if "perf/step_time_s" in row]
    assert [row["step"] for row in perf] == [5, 10]
    frames = cfg.data.batch_size * cfg.model.network.context_steps
    for row in perf:
        assert row["perf/frames_per_s"] * row["perf/step_time_s"] == pytest.approx(frames)
        assert row["perf/tokens_per_s"] == pytest.approx(row["perf/frames_per_s"] * 64)
        assert 0 <= row["data/wait_share"] < 1
        assert row["perf/mfu"] > 0


class Keeping(DummyLogger):
    """A logger of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict] = []

    def log_metrics(self, metrics, step=None) -> None:
        self.rows.append({"step": step, **metrics})


def test_several_loggers_have_the_same_rows(composed, fit):
    assert list(composed("gpt_tiny", "logger=[csv,wandb]").logger) == ["csv", "wandb"]
    mine = f"+logger.mine._target_={HERE}.Keeping"
    cut = ["+debug=fast", "trainer.max_steps=4", "trainer.log_every_n_steps=2"]
    module, run, trainer = fit(
        composed("gpt_tiny", *cut, "callbacks.media=null", "logger=csv", mine)
    )
    assert {k for k in trainer.callback_metrics if "val/" in k} == set(module.validated)
    with (run.folder / "csv/version_0/metrics.csv").open() as file:
        kept = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train/loss" in row] == [2, 4]
    for row in rows:
        own = {k: v for k, v in row.items() if k not in ("time", "epoch")}
        assert any(own.items() <= other.items() for other in kept), row
        assert any(own.items() <= other.items() for other in trainer.loggers[-1].rows), row


class Counting(L.Callback):
    """A callback of a user's own."""

    def __init__(self, word: str) -> None:
        self.word, self.steps = word, 0

    def on_train_batch_end(self, *args) -> None:
        self.steps += 1


def test_a_callback_of_ones_own_needs_no_change_here(composed, fit):
    mine = [f"+callbacks.mine._target_={HERE}.Counting"]
    mine += ["+callbacks.mine.word=hello", "trainer.max_steps=3"]
    _, _, trainer = fit(composed("gpt_tiny", "+debug=fast", "callbacks.media=null", *mine))
    found = [c for c in trainer.callbacks if type(c).__name__ == "Counting"]
    assert [(c.word, c.steps) for c in found] == [("hello", 3)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+callbacks.mine._target_=no.such.Class"], r"callbacks\.mine: .*no"),
        (["+callbacks.mine._target_=pathlib.Path"], r"callbacks\.mine.*is no Callback"),
        (["+callbacks.mine.word=a"], r"callbacks\.mine: names no class"),
        (["+logger.mine._target_=pathlib.Path"], r"logger\.mine.*is no Logger"),
        (["callbacks.media.nope=1"], "nope"),
    ],
)
def test_an_entry_that_is_none_is_named(words, said, composed):
    with pytest.raises((BadInput, ConfigCompositionException), match=said):
        check_settings(composed("gpt_tiny", *words))


def test_without_tensorboard_the_entry_says_what_to_install(composed, monkeypatch):
    monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(BadInput, match=r"logger\.tensorboard: .*tensorboard.*pip install"):
        check_settings(composed("gpt_tiny", "logger=tensorboard"))


@pytest.mark.slow
def test_a_loader_that_is_slow_is_seen_in_the_data_wait(composed, fit, monkeypatch):
    from worldmodel.windows import TokenWindows

    real = TokenWindows.__getitem__
    monkeypatch.setattr(
        TokenWindows, "__getitem__", lambda self, i: (time.sleep(0.2), real(self, i))[1]
    )
    cut = [
        "+debug=fast",
        "trainer.max_steps=6",
        "trainer.log_every_n_steps=6",
        "callbacks.media=null",
    ]
    _, run, _ = fit(composed("gpt_tiny", *cut))
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    (wait,) = [row["data/wait_share"] for row in rows if "data/wait_share" in row]
    assert wait > 0.4
