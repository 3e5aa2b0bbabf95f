"""What a run leaves behind to look at: JSONL and an offline wandb run, without any question."""

import json
import time

import pytest


@pytest.fixture
def offline(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    # wandb reads and writes the environment; what we set must not outlive the test.
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_a_run_logs_the_same_metrics_to_jsonl_and_to_wandb(composed, fit, offline):
    cut = ["+debug=worldmodel", "trainer.max_steps=10", "logger.wandb=true", "media.every_steps=10"]
    _, run, trainer = fit(composed("gpt_tiny", *cut))
    run.finish(trainer)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    keys = {key for row in rows for key in row}
    assert {
        "train/loss",
        "train/grad_norm",
        "train/lr",
        "val/loss",
        "perf/tokens_per_s",
        "perf/frames_per_s",
        "perf/mfu",
        "data/wait_share",
    } <= keys
    (recorded,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    wanted = [b"train/loss", b"val/loss", b"data/wait_share", b"rollout/clips"]
    # wandb's own process writes the last rows just after `finish` has returned.
    deadline = time.monotonic() + 20
    while not all(key in recorded.read_bytes() for key in wanted):
        assert time.monotonic() < deadline, [k for k in wanted if k not in recorded.read_bytes()]
        time.sleep(0.1)
    assert recorded.stem == f"run-{run.id}"
    assert list(run.folder.glob("wandb/offline-run-*/files/media/**/*.png"))
    assert {p.suffix for p in run.folder.glob("media/step-*/*")} == {".png", ".gif", ".mp4"}


def test_throughput_figures_are_consistent(composed, fit):
    cut = ["+debug=worldmodel", "trainer.max_steps=10", "trainer.log_every_n_steps=5", "media=none"]
    cfg = composed("gpt_tiny", *cut)
    _, run, _ = fit(cfg)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    perf = [row for row in rows if "perf/step_time_s" in row]
    assert [row["step"] for row in perf] == [5, 10]
    frames = cfg.loader.batch_size * cfg.model.network.context_steps
    for row in perf:
        assert row["perf/frames_per_s"] * row["perf/step_time_s"] == pytest.approx(frames)
        assert row["perf/tokens_per_s"] == pytest.approx(row["perf/frames_per_s"] * 64)
        assert 0 <= row["data/wait_share"] < 1
        assert row["perf/mfu"] > 0


def test_a_loader_that_is_slow_is_seen_in_the_data_wait(composed, fit, monkeypatch):
    from worldmodel.data import TokenWindows

    real = TokenWindows.__getitem__
    monkeypatch.setattr(
        TokenWindows, "__getitem__", lambda self, i: (time.sleep(0.2), real(self, i))[1]
    )
    cut = ["+debug=worldmodel", "trainer.max_steps=6", "trainer.log_every_n_steps=6", "media=none"]
    _, run, _ = fit(composed("gpt_tiny", *cut))
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    (wait,) = [row["data/wait_share"] for row in rows if "data/wait_share" in row]
    assert wait > 0.4
