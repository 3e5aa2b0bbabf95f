"""The search: what it accepts, how it continues, and that a trial is a run like any other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf
from search_plan import written

from training.disk.status import read_status
from training.errors import BadInput
from training.search import search
from training.search.report import ReportMetric
from training.search.space import read_plan
from training.sweeps.trials import refuse_several_processes

ROOT = Path(__file__).parents[3]


def searched(folder: Path, *overrides: str, **changes: Any) -> search.Search:
    """A search run to its end in `folder`; `search.train` is what the test put there."""
    with search.open_search(
        written(folder, **changes), (f"paths.runs={folder}/runs", *overrides)
    ) as opened:
        opened.run()
        return opened


def fake_loss(cfg: Any) -> float:
    return abs(cfg.optimizer.lr - 1e-3) * 1e3 + cfg.model.network.num_layers


@pytest.fixture
def trained(monkeypatch) -> list[tuple[str, float]]:
    """Replaces training by a formula; the run folders and learning rates that were asked for."""
    seen: list[tuple[str, float]] = []

    def train(cfg, trial, metric):
        seen.append((Path(cfg.run).name, cfg.optimizer.lr))
        return fake_loss(cfg)

    monkeypatch.setattr(search, "train", train)
    return seen


def test_trials_are_run_folders_and_more_can_be_asked_for(trained, tmp_path, capsys):
    first = searched(tmp_path)
    assert [name for name, _ in trained] == [f"trial-{n:04d}" for n in range(4)]
    assert all(1e-4 <= lr <= 1e-2 for _, lr in trained)
    assert len({lr for _, lr in trained}) == 4
    assert first.folder == tmp_path / "runs" / "search" / "quick"
    assert first.study.best_value == min(t.value for t in first.study.trials)
    best = f"trial-{first.study.best_trial.number:04d}"
    assert best in first.summary()
    searched(tmp_path, num_trials=6)
    assert [name for name, _ in trained[4:]] == ["trial-0004", "trial-0005"]
    where = f"paths.runs={tmp_path}/runs"
    search.main([str(tmp_path / "quick.yaml"), "--num-trials", "7", where])
    assert [name for name, _ in trained[6:]] == ["trial-0006"]
    with pytest.raises(SystemExit):
        search.main([str(tmp_path / "quick.yaml"), where, "--num-trials", "0"])
    assert "--num-trials 0" in capsys.readouterr().err


def test_a_direction_is_followed(trained, tmp_path):
    found = searched(tmp_path, direction="maximize")
    assert found.study.best_value == max(t.value for t in found.study.trials)


@pytest.mark.slow
def test_an_interrupted_search_tries_what_an_uninterrupted_one_does(trained, tmp_path, monkeypatch):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    # Two dozen times Hydra's is slow, and not what this is about.
    quick = lambda plan, overrides: OmegaConf.from_dotlist(list(overrides))  # noqa: E731
    monkeypatch.setattr(search, "compose", quick)
    searched(tmp_path / "whole", num_trials=12)
    whole, trained[:] = list(trained), []

    class Killed(BaseException):
        pass

    steady = search.train

    def killed_at(number: int):
        def train(cfg, trial, metric):
            if trial.number == number:
                raise Killed
            return steady(cfg, trial, metric)

        return train

    # Early, where trials are random, and late, where TPE chooses them.
    for number in (1, 11):
        monkeypatch.setattr(search, "train", killed_at(number))
        with pytest.raises(Killed):
            searched(tmp_path / "cut", num_trials=12)
    monkeypatch.setattr(search, "train", steady)
    searched(tmp_path / "cut", num_trials=12)
    assert trained == whole


@pytest.mark.slow
def test_another_search_in_the_folder_and_a_second_process_are_refused(trained, tmp_path):
    searched(tmp_path)
    with pytest.raises(BadInput, match="holds a search with metric=val/loss"):
        searched(tmp_path, metric="val/bits")
    with pytest.raises(BadInput, match="holds a search with command_line"):
        searched(tmp_path, "seed=3")
    overrides = (f"paths.runs={tmp_path}/runs",)
    with (
        search.open_search(written(tmp_path), overrides),
        pytest.raises(BadInput, match=r"process \d+ on .* searches there since"),
        search.open_search(written(tmp_path), overrides),
    ):
        pass


@pytest.mark.slow
def test_a_failed_trial_is_told_and_three_in_a_row_end_the_search(tmp_path, monkeypatch):
    def train(cfg, trial, metric):
        if trial.number != 1:
            raise BadInput(f"no memory for trial {trial.number}")
        return 1.0

    monkeypatch.setattr(search, "train", train)
    with pytest.raises(BadInput, match=r"3 trials failed one after the other.*trial 4"):
        searched(tmp_path, num_trials=9)
    folder = tmp_path / "runs" / "search" / "quick"
    status = read_status(folder / "trial-0000")
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    assert status["reason"] == "no memory for trial 0"


def validated(trial: optuna.Trial, values: dict[int, float], **state: Any) -> None:
    report = ReportMetric(trial, "val/loss")
    for step, value in values.items():
        trainer = SimpleNamespace(
            callback_metrics={"val/loss": value},
            global_step=step,
            max_steps=30,
            state=SimpleNamespace(fn="fit"),
        )
        report.on_validation_end(trainer, None)  # type: ignore[arg-type]


def test_a_trial_worse_than_the_others_is_pruned_before_its_last_step(tmp_path):
    plan = read_plan(written(tmp_path, pruner={"startup_trials": 2, "warmup_steps": 15}))
    study = optuna.create_study(pruner=search.pruner(plan))
    for _ in range(2):
        trial = study.ask()
        validated(trial, {10: 2.0, 20: 1.0, 30: 0.5})
        study.tell(trial, 0.5)
    bad = study.ask()
    validated(bad, {10: 9.0})  # before warmup_steps
    with pytest.raises(optuna.TrialPruned, match="step 20"):
        validated(bad, {20: 9.0})
    late = study.ask()
    validated(late, {10: 2.0, 20: 1.0, 30: 9.0})  # nothing is left to save at the last step
    unpruned = read_plan(written(tmp_path, pruner=None))
    study.pruner = search.pruner(unpruned)
    validated(study.ask(), {10: 99.0, 20: 99.0})


def test_a_report_lost_to_a_kill_after_its_row_was_written_is_made_up_for():
    study = optuna.create_study()
    rows = [{"step": 10, "val/loss": 2.0}, {"step": 15, "train/loss": 3.0}]
    assert ReportMetric(study.ask(), "val/loss", rows).last() == 2.0
    assert study.get_trials()[0].intermediate_values == {10: 2.0}


def test_a_misspelled_metric_is_named_before_anything_is_made(trained, tmp_path):
    with pytest.raises(BadInput, match=r"quick\.yaml: metric: val/los: .*did you mean val/loss"):
        searched(tmp_path, metric="val/los")
    assert not (tmp_path / "runs").exists()
    assert not trained


def test_an_unknown_metric_and_several_processes_are_refused():
    study = optuna.create_study()
    report = ReportMetric(study.ask(), "val/los")
    trainer = SimpleNamespace(callback_metrics={"val/loss": 1.0}, global_step=1)
    with pytest.raises(BadInput, match=r"val/los: not logged; there are: val/loss"):
        report.on_validation_end(trainer, None)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"trainer\.devices=2"):
        refuse_several_processes(SimpleNamespace(world_size=2))


TINY = {
    "overrides": [
        *("+debug=fast", "logger=none", "trainer.accelerator=cpu", "callbacks.media=null"),
        *("trainer.devices=1", "trainer.max_steps=12", "trainer.val_check_interval=4"),
        *("checkpoints.every_steps=5", "trainer.log_every_n_steps=1"),
    ],
    "space": {"optimizer.lr": {"log_uniform": [1.0e-4, 1.0e-2]}},
    "num_trials": 2,
    "pruner": None,
}


def started(folder: Path, data: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "training.search", str(folder / "quick.yaml")]
    where = [f"paths.runs={folder}/runs", f"paths.data={data}"]
    return subprocess.Popen([*command, *where], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})


def results(folder: Path) -> list[tuple[int, dict, dict, float | None]]:
    url = f"sqlite:///{folder}/runs/search/quick/study.db"
    study = optuna.load_study(study_name="quick", storage=url)
    return [(t.number, t.params, t.intermediate_values, t.value) for t in study.trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_folder) -> Path:
    """A search that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    written(folder, **TINY)
    assert started(folder, data_folder).wait() == 0
    return folder


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.attack),
    ],
)
def test_a_search_that_is_stopped_goes_on_to_the_same_results(number, whole, tmp_path, data_folder):
    written(tmp_path, **TINY)
    process = started(tmp_path, data_folder)
    second = tmp_path / "runs" / "search" / "quick" / "trial-0001"
    while not (second / "checkpoints" / "step-0000005").is_dir():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    killed = number == signal.SIGKILL
    assert process.wait() == (-9 if killed else 75)
    assert read_status(second)["state"] == ("running" if killed else "stopped")
    before = json.loads((second / "run.json").read_text())["run_id"]
    assert started(tmp_path, data_folder).wait() == 0

    assert results(tmp_path) == results(whole)
    assert sorted(p.name for p in second.parent.glob("trial-*")) == ["trial-0000", "trial-0001"]
    assert json.loads((second / "run.json").read_text())["run_id"] == before
    assert read_status(second)["state"] == "finished"
    assert read_status(second)["attempts"] == 2
