"""What wandb keeps offline is complete: the files that `wandb sync` sends, read back by hand."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from offline_wandb import history, run_record

from training.watch.loggers import Wandb
from training.watch.workspace import AXIS


@pytest.fixture
def offline(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    # wandb reads and writes the environment; what we set must not outlive the test.
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.finish()
    wandb.teardown()


CUT = (
    "+debug=fast",
    "logger=wandb",
    "callbacks.media.every_steps=10",
    "trainer.log_every_n_steps=2",
)


def written(folder, last):
    """The offline file, once wandb's own process has written its last row."""
    deadline = time.monotonic() + 30
    while True:
        for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
            if any(row.get("val/loss") and row[AXIS] >= last for row in history(file)):
                return file
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_offline_files_hold_all_that_a_run_logged(composed, fit, offline, tmp_path):
    """Read back with no wandb between: every row of metrics.jsonl, config, media, one run id."""
    files = []
    for steps in (10, 20):  # the second resumes the first
        _, run, trainer = fit(composed("gpt_tiny", *CUT, f"trainer.max_steps={steps}"))
        run.finish(trainer)
        files.append(written(run.folder, steps))
        time.sleep(1.1)  # wandb names folders by the second
    assert files[0] != files[1]
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    sent = [row for file in files for row in history(file)]
    for row in rows:
        own = {k: v for k, v in row.items() if k not in ("step", "time", "epoch")}
        at = [s for s in sent if s.get(AXIS) == row["step"] and own.keys() <= s.keys()]
        assert any(all(s[k] == pytest.approx(v) for k, v in own.items()) for s in at), row
    media = [row for row in sent if any(key.startswith("rollout/clips") for key in row)]
    assert {row[AXIS] for row in media} == {10, 20}
    for file, steps in zip(files, (10, 20), strict=True):
        record = run_record(file)
        assert record.run_id == run.id
        assert (record.run_group, record.job_type) == ("gpt_tiny", "worldmodel")
        config = {item.key: json.loads(item.value_json) for item in record.config.update}
        assert config["trainer"]["max_steps"] == steps
        assert list(file.parent.glob("files/media/**/*.png"))
    assert {p.suffix for p in run.folder.glob("media/step-*/*")} == {".png", ".gif", ".mp4"}


@pytest.fixture
def online(monkeypatch):
    """`online(address)`: what a run logs to wandb's server there, and seconds that it began in."""

    def begin(address: str, folder: Path) -> tuple[Any, float]:
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", address)
        began = time.monotonic()
        logger = Wandb(str(folder), "project", "group", "job")
        logger.name_run("abc123", {})
        return logger.experiment, time.monotonic() - began

    yield begin
    wandb.finish()
    wandb.teardown()


@pytest.mark.filterwarnings("error:.*anonymous.*")
def test_without_a_network_a_run_goes_on_offline_at_once(online, tmp_path, capfd):
    folder = tmp_path / "a run"
    folder.mkdir()
    run, seconds = online("http://127.0.0.1:1", folder)
    assert run.settings.mode == "offline"
    assert seconds < 15
    run.log({"loss": 1.0})
    shown = capfd.readouterr()
    assert "127.0.0.1 cannot be reached" in shown.out
    assert f"wandb sync '{folder}/wandb'/offline-run-*" in shown.out
    assert "anonymous" not in shown.out + shown.err
    assert list(folder.glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_a_server_that_says_nothing_does_not_keep_a_run(online, tmp_path, capfd):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        run, seconds = online(f"http://127.0.0.1:{mute.getsockname()[1]}", tmp_path)
        assert run.settings.mode == "offline"
        assert seconds < 60
    assert "the run goes on offline" in capfd.readouterr().out
