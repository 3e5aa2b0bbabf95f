"""Sweeps on a real Slurm of one node, which these tests start (tests/slurm_up.sh)."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from training.checkpoints.folder import newest_first
from training.disk.status import read_status
from training.sweeps import table as sweep_table
from training.sweeps.snapshot import PACKAGES, PROGRAMS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "tests" / "slurm_up.sh"
STEPS = 60
TINY = (
    *("+experiment=gpt_tiny", "+debug=fast", "callbacks.media=null", "logger=none"),
    *("trainer.accelerator=cpu", "trainer.log_every_n_steps=1", f"trainer.max_steps={STEPS}"),
    *("trainer.val_check_interval=20", "checkpoints.every_steps=20", "max_passes=null"),
)
LAUNCH = ("hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=20")


def free_ports() -> int:
    """A port that is free together with the next one."""
    for port in range(17000, 19000, 2):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands reach it."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("Slurm's daemon needs root")
    if not all(map(shutil.which, ("slurmctld", "slurmd", "srun", "munged", "apt-get"))):
        if not shutil.which("apt-get"):
            pytest.skip("no slurmctld, and no apt-get to install it with")
        installed = subprocess.run([SCRIPT, "install"], capture_output=True, text=True)
        if installed.returncode:
            pytest.skip(f"Slurm cannot be installed: {installed.stderr.strip()[-200:]}")
    folder = tmp_path_factory.mktemp("slurm")
    start = [str(SCRIPT), "start", str(folder), str(free_ports())]
    began = subprocess.run(start, stdout=subprocess.DEVNULL, stderr=(folder / "err").open("w"))
    try:
        assert began.returncode == 0, (folder / "err").read_text()
        yield os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "WANDB_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
        }
    finally:
        subprocess.run([SCRIPT, "stop", folder], capture_output=True)


@pytest.fixture
def tree(tmp_path) -> Path:
    """A checkout of the code, from which a sweep is submitted and which may then be edited."""
    home = tmp_path / "tree"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in PROGRAMS:
        shutil.copyfile(ROOT / name, home / name)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", str(home)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "code"]):
        subprocess.run([*git, *command], check=True)
    return home


@pytest.fixture
def submit(slurm, tree, tmp_path, data_folder) -> Iterator[Callable[..., subprocess.Popen]]:
    """`submit(launcher, *overrides)`: the user's command, run from the tree; it waits there."""

    begun: list[subprocess.Popen] = []

    def run(launcher: str | None, *overrides: str) -> subprocess.Popen:
        where = (f"paths.runs={tmp_path}/runs", f"paths.data={data_folder}")
        many = () if launcher is None else ("-m",)
        sweep = () if launcher is None else (f"hydra/launcher={launcher}", *LAUNCH)
        process = subprocess.Popen(
            [sys.executable, "train.py", *many, *TINY, *where, *sweep, *overrides],
            cwd=tree,
            env=slurm | {"PYTHONPATH": str(tree)},
            stdout=(tmp_path / "launcher.log").open("a"),
            stderr=subprocess.STDOUT,
            text=True,
        )
        begun.append(process)
        return process

    yield run
    for process in begun:  # where a test failed, it may still wait for its jobs
        process.kill()
        process.wait()


def until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.02)


def asked(slurm: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=slurm, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def in_state(slurm: dict[str, str], state: str) -> list[str]:
    command = ("squeue", "--array", "--noheader", f"--states={state}", "--format=%i")
    return asked(slurm, *command).split()


def logs(sweep: Path) -> str:
    """What the jobs of a sweep printed, and the command that submitted them."""
    files = [*sorted(sweep.glob("slurm/*/*log*")), sweep.parent.parent.parent / "launcher.log"]
    return "\n".join(f"--- {f}\n{f.read_text()[-4000:]}" for f in files)


def losses(run: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]


def weights(run: Path) -> bytes:
    return (newest_first(run)[0] / "weights.safetensors").read_bytes()


def run_with(sweep: Path, lr: float, seed: int) -> Path | None:
    """The run folder of a sweep with these settings, once it has said what it is."""
    for file in sweep.rglob("config.yaml"):
        config = yaml.safe_load(file.read_text()) or {}
        if (config.get("optimizer", {}).get("lr"), config.get("seed")) == (lr, seed):
            return file.parent
    return None


def num_logged(run: Path | None) -> int:
    return len(losses(run)) if run and (run / "metrics.jsonl").exists() else 0


def test_a_sweep_finishes_with_its_code_though_edited_and_requeued(slurm, submit, tree, tmp_path):
    alone = submit(None, "optimizer.lr=1e-3", "seed=1", "run=${paths.runs}/alone")
    assert alone.wait() == 0, (tmp_path / "launcher.log").read_text()

    sweep = tmp_path / "runs" / "sweeps" / "gpt_tiny"
    hold = "+hydra.launcher.additional_parameters.hold=true"
    launcher = submit("slurm", "optimizer.lr=1e-3,1e-4", "seed=0,1", hold)
    until(lambda: len(in_state(slurm, "PENDING")) == 4 or launcher.poll(), "four jobs")
    assert launcher.poll() is None, logs(sweep)
    # Nothing of the tree may reach the jobs from here on.
    for name in ("training/run.py", "worldmodel/dynamics/gpt/model.py", "train.py"):
        (tree / name).write_text("raise RuntimeError('edited after submission')\n")
    (tree / "configs/model/gpt.yaml").write_text("edited: after submission\n")
    asked(slurm, "scontrol", "release", *in_state(slurm, "PENDING"))

    trains = lambda: num_logged(run_with(sweep, 1e-3, 1)) > 10  # noqa: E731
    until(lambda: trains() or launcher.poll() is not None, "the second job to train")
    run = run_with(sweep, 1e-3, 1)
    assert run is not None, logs(sweep)
    job = read_status(run)["job"]
    asked(slurm, "scancel", "--signal=USR2", job)  # what Slurm sends before the time is up
    until(lambda: read_status(run).get("state") == "stopped", "the job to stop", 30)
    assert num_logged(run_with(sweep, 1e-3, 1)) < STEPS
    assert launcher.wait() == 0, logs(sweep)

    assert read_status(run)["attempts"] == 2, logs(sweep)
    assert "Restarts=1" in asked(slurm, "scontrol", "show", "job", job)
    assert losses(run) == losses(tmp_path / "runs" / "alone")
    assert weights(run) == weights(tmp_path / "runs" / "alone")

    rows = sweep_table.find_rows(sweep)
    assert [(r["state"], r["step"]) for r in rows] == [("finished", f"{STEPS}/{STEPS}")] * 4
    assert sweep_table.differing_settings(rows) == ["optimizer.lr", "seed"]
    assert all("val/loss" in r for r in rows)
    assert sorted(r["attempts"] for r in rows) == [1, 1, 1, 2]
    sha = asked(slurm, "git", "-C", str(tree), "rev-parse", "HEAD").strip()
    assert json.loads((run / "run.json").read_text())["git"] == sha


def test_a_failing_job_says_so_to_slurm_to_the_table_and_to_the_launcher(slurm, submit, tmp_path):
    sweep = tmp_path / "runs" / "sweeps" / "gpt_tiny"
    launcher = submit("slurm", "optimizer.schedule=cosin,cosine", "trainer.max_steps=20")
    assert launcher.wait() not in (0, None)
    states = {row["state"]: row for row in sweep_table.find_rows(sweep)}
    assert set(states) == {"finished", "failed"}, logs(sweep)
    assert "cosin" in states["failed"]["reason"]
    assert "constant" in states["failed"]["reason"]
    assert read_status(sweep / states["failed"]["run"])["exit_code"] == 2
    ours = {folder.name for folder in (sweep / "slurm").iterdir()}
    (job,) = ours.intersection(in_state(slurm, "FAILED"))
    assert "ExitCode=2:0" in asked(slurm, "scontrol", "show", "job", job)
    (good,) = ours.intersection(in_state(slurm, "COMPLETED"))
    assert good == read_status(sweep / states["finished"]["run"])["job"]
    # The failed one, alone, did not end the wait for the other.
    assert states["finished"]["step"] == "20/20"
    log = (tmp_path / "launcher.log").read_text()
    assert f"Job {job}" in log


def test_slurm_starts_both_processes_of_a_run(slurm, submit, tmp_path):
    sweep = tmp_path / "runs" / "sweeps" / "gpt_tiny"
    two = ("trainer=ddp", "trainer.devices=2", "trainer.max_steps=20")
    launcher = submit("slurm_multinode", *two)
    assert launcher.wait() == 0, logs(sweep)
    (row,) = sweep_table.find_rows(sweep)
    assert (row["state"], row["step"]) == ("finished", "20/20")
    script = next(sweep.glob("slurm/*/*_submission.sh")).read_text()
    assert "--ntasks-per-node=2" in script
    job = read_status(sweep / row["run"])["job"]
    for task in (0, 1):
        assert (sweep / "slurm" / job / f"{job}_{task}_log.out").is_file()
        # A process that Slurm did not start has nobody to hand its result to.
        assert (sweep / "slurm" / job / f"{job}_{task}_result.pkl").is_file()
    assert len(losses(sweep / row["run"])) == 20


def test_the_batch_script_of_the_docs_trains_with_two_processes_and_is_requeued(
    slurm, tree, tmp_path, data_folder
):
    (script,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/clusters.md").read_text(), flags=re.S)
    # This node has no GPU; the other sizes are set on the command line, which goes first.
    (tree / "train.sbatch").write_text(script.replace("#SBATCH --gpus-per-node=8\n", ""))
    where = (f"paths.runs={tmp_path}/runs", f"paths.data={data_folder}", "run=${paths.runs}/two")
    size = ("--nodes=1", "--ntasks-per-node=2", "--time=20", f"--output={tmp_path}/log")
    here = slurm | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    answer = subprocess.run(
        ["sbatch", *size, "train.sbatch", *TINY, *where, "trainer=ddp", "trainer.devices=2"],
        cwd=tree,
        env=here | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=True,
    )
    job, run = answer.stdout.split()[-1], tmp_path / "runs" / "two"

    def ended() -> bool:
        return job in in_state(slurm, "COMPLETED,FAILED")

    until(lambda: ended() or num_logged(run) > 5, "training")
    asked(slurm, "scancel", "--signal=USR2", job)
    until(lambda: ended(), "the end", 200)
    assert job in in_state(slurm, "COMPLETED"), (tmp_path / "log").read_text()[-3000:]
    status = read_status(run)
    assert (status["state"], status["step"], status["attempts"]) == ("finished", STEPS, 2)
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))


def test_more_devices_than_slurm_would_start_are_refused_before_submission(submit, tmp_path):
    launcher = submit("slurm", "trainer.devices=2", "trainer.strategy=ddp")
    assert launcher.wait() == 2
    log = (tmp_path / "launcher.log").read_text()
    assert log.startswith("error: trainer.devices=2")
    assert "slurm_multinode" in log
    assert not (tmp_path / "runs").exists()
