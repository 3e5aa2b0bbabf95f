"""A run folder belongs to one process, survives torn files, and says what changed since."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest

import training.checkpoints.resume as resume
import training.run as runs
from training.checkpoints.folder import newest_first
from training.disk.folders import LOCK, alone_in
from training.disk.status import read_status
from training.errors import BadInput
from training.watch.rows import read_rows

ROOT = Path(__file__).parent.parent.parent
TINY = (
    "+debug=fast",
    "callbacks.media=null",
    "model.network.dim=24",
    "model.network.num_layers=1",
    "data.batch_size=2",
    "data.num_val_windows=2",
    "trainer.max_steps=2",
    "trainer.log_every_n_steps=1",
    "trainer.precision=32-true",
)
HOLD = """
import os, sys, time
from pathlib import Path
from training.disk.folders import lock_folder
lock = lock_folder(Path(sys.argv[1]), "trains")
if os.fork() == 0:
    time.sleep(30)  # as a data worker that outlives its parent
    os._exit(0)
print("held", flush=True)
time.sleep(30)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("trained") / "run"}


@pytest.fixture
def run(trained, composed, fit, tmp_path) -> Path:
    """A copy of a finished run of two steps; it is trained once."""
    if not trained["folder"].exists():
        fit(composed("gpt_tiny", *TINY, f"run={trained['folder']}"))
    return shutil.copytree(trained["folder"], tmp_path / "run")


@pytest.fixture
def opened(run, composed):
    """Opens the copy as train.py does, which trains nothing."""
    return lambda *overrides: runs.open_run(composed("gpt_tiny", *TINY, f"run={run}", *overrides))


def test_a_folder_is_held_by_one_process_and_released_by_its_death(run, opened):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    told = (
        rf"run: process {holder.pid} on {os.uname().nodename} trains there since 20.*; let it end"
    )
    with pytest.raises(BadInput, match=told):
        opened()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert opened().resume_from


def test_a_run_that_was_opened_before_another_trained_is_refused(composed, fit, tmp_path):
    cfg = composed("gpt_tiny", *TINY, f"run={tmp_path}/run")
    early = runs.open_run(cfg)
    module, _, trainer = fit(composed("gpt_tiny", *TINY, f"run={tmp_path}/run"))
    with pytest.raises(BadInput, match="another process has trained there; start again"):
        early.describe(trainer.datamodule, module)
    with alone_in(tmp_path / "run", "trains"):
        pass  # it let go of the folder


@pytest.mark.parametrize("torn", [b"", b"{}", b'{"run_id": "1', b"\x00" * 80, b"[]"])
def test_torn_small_files_are_repaired_from_the_checkpoint(torn, run, opened, capsys):
    told = json.loads((run / "run.json").read_text())["run_id"]
    for name in ("run.json", "status.json", "config.yaml"):
        (run / name).write_bytes(torn)
    assert opened().id == told
    assert "run.json" in capsys.readouterr().out


def test_a_finished_run_with_torn_files_is_whole_after_its_next_start(run, composed, fit):
    before, kept = read_rows(run / "metrics.jsonl"), (run / "config.yaml").read_text()
    for name in ("run.json", "status.json", "config.yaml"):
        (run / name).write_bytes(b"")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "ti')
    fit(composed("gpt_tiny", *TINY, f"run={run}"))
    assert read_status(run)["state"] == "finished"
    lines = [set(text.splitlines()) for text in ((run / "config.yaml").read_text(), kept)]
    assert all("runs:" in line or "run:" in line for line in lines[0] ^ lines[1])
    assert json.loads((run / "run.json").read_text())["run_id"]
    assert read_rows(run / "metrics.jsonl") == before
    assert not list(run.glob(".*.partial"))


class Kill(L.Callback):
    """Ends the process' work in the last validation, which is made up for once."""

    def on_validation_start(self, trainer, module):
        raise KeyboardInterrupt


def test_the_validation_of_the_last_step_is_made_once_whatever_happens(composed, fit, tmp_path):
    cfg = composed("gpt_tiny", *TINY, f"run={tmp_path}/run")
    # Two steps are fewer than the interval: the last one is validated all the same.
    assert cfg.trainer.val_check_interval > cfg.trainer.max_steps
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(cfg, Kill())
    for _ in range(2):
        fit(cfg)
        rows = read_rows(tmp_path / "run/metrics.jsonl")
        assert [r["step"] for r in rows if "val/loss" in r] == [2]
        assert [r["step"] for r in rows if "train/loss" in r] == [1, 2]


def test_what_changed_since_is_said_and_what_makes_it_another_run_is_refused(
    opened, tmp_path, capsys
):
    opened("trainer.max_steps=4", "trainer.precision=bf16-mixed", f"paths.data={tmp_path}/moved")
    said = [s for s in capsys.readouterr().out.splitlines() if s.startswith("changed since")]
    text = "changed since: "
    longer = "trainer.max_steps 2 -> 4: the learning-rate schedule is another from here"
    assert text + longer in said
    assert any(s.startswith(f"{text}trainer.precision 32-true -> bf16-mixed: ") for s in said)
    # A copy of the data elsewhere is the same data, and so are the texts beside it.
    assert len(said) == 3
    assert any(s.startswith(f"{text}paths.data ") for s in said)
    opened()
    assert "changed since" not in capsys.readouterr().out
    for other in ("optimizer.lr=0.5", "seed=7", "model.network.dropout=0.5"):
        key, value = other.split("=")
        with pytest.raises(BadInput, match=rf"its run has {key}=.*, now {value} is asked for"):
            opened(other)


def test_every_setting_of_the_trainer_is_known_to_be_free_or_not(composed):
    """A new one has to be thought about."""
    settings = {f"trainer.{key}" for key in composed("gpt_tiny").trainer}
    assert settings == {name for name in resume.FREE if name.startswith("trainer.")}


def test_a_run_keeps_its_precision_on_another_cpu(composed, monkeypatch, capsys):
    cfg = composed("gpt_tiny")
    assert cfg.trainer.precision == "auto"
    for has_bf16, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(resume, "computes_in_bf16", lambda has=has_bf16: has)
        new = cfg.copy()
        resume.decide_precision(new, None)
        assert new.trainer.precision == precision
        monkeypatch.setattr(resume, "computes_in_bf16", lambda has=has_bf16: not has)
        again = cfg.copy()
        resume.decide_precision(again, {"trainer": {"precision": precision}})
        assert again.trainer.precision == precision
        assert ("has no units for it" in capsys.readouterr().out) == (precision == "bf16-mixed")


def test_the_precision_of_a_run_is_written_down(composed, fit, tmp_path):
    cfg = composed("gpt_tiny", *TINY[:-1], f"run={tmp_path}/run")
    _, run, trainer = fit(cfg)
    assert trainer.precision in ("bf16-mixed", "32-true")
    manifest = json.loads((newest_first(run.folder)[0] / "manifest.json").read_text())
    assert manifest["config"]["trainer"]["precision"] == trainer.precision
    assert f"precision: {trainer.precision}" in (run.folder / "config.yaml").read_text()


@pytest.mark.slow
def test_a_run_begun_in_bf16_goes_on_in_it_where_the_cpu_has_none(data_folder, tmp_path):
    """The kernels' own switch makes this CPU one without bf16."""
    if not runs.hardware().startswith("CPU") or not resume.computes_in_bf16():
        pytest.skip("this device has no bf16 to take away")
    where = (f"run={tmp_path}/run", f"paths.data={data_folder}", "logger=none")
    command = [sys.executable, "train.py", "+experiment=gpt_tiny", *TINY[:-1], *where]
    said = []
    for steps, isa in ((2, {}), (4, {"ONEDNN_MAX_CPU_ISA": "AVX2"})):
        done = subprocess.run(
            [*command, f"trainer.max_steps={steps}"],
            cwd=ROOT,
            env=os.environ | isa,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
        assert "precision: bf16-mixed" in (tmp_path / "run/config.yaml").read_text()
    assert "has no units for it" not in said[0]
    assert "trains in bf16-mixed, which is slow here" in said[1]


def test_places_that_cannot_be_written_are_refused_before_anything_is_made(composed, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for place, why in ((file, "is a file"), (file / "run", "is a file")):
        with pytest.raises(BadInput, match=f"run={place}: .*{why}"):
            runs.open_run(composed("gpt_tiny", *TINY, f"run={place}"))
    assert file.read_text() == "mine"


READ_ONLY = """
mount -t tmpfs none "$1" && cp -r "$2"/. "$1" && mount -o remount,ro "$1" || exit 77
shift 2
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["run", "new", "proc"])
def test_a_read_only_folder_ends_the_command_in_one_line(place, run, tmp_path, data_folder):
    """A file system that is really read-only: it stops root too."""
    disk = tmp_path / "disk"
    disk.mkdir()
    folder = {"run": disk, "new": disk / "new", "proc": Path("/proc/new")}[place]
    where = (f"run={folder}", f"paths.data={data_folder}", "logger=none")
    command = [sys.executable, "train.py", "+experiment=gpt_tiny", *TINY, *where]
    shell = ["unshare", "--mount", "--map-root-user", "sh", "-c", READ_ONLY, "sh"]
    done = subprocess.run(
        [*shell, str(disk), str(run), *command], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: run={folder}: ")


def test_the_lock_file_is_all_that_a_refused_start_leaves(run, opened):
    (run / LOCK).unlink()
    before = sorted(p.name for p in run.iterdir())
    opened()
    assert sorted(p.name for p in run.iterdir()) == before
