"""The snapshot of the code, and what is sent to Slurm with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from training.sweeps import snapshot
from training.sweeps.slurm_queue import job_states, make_watcher, unstartable

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the code that a test may edit."""
    home = tmp_path / "tree"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in snapshot.PACKAGES:
        shutil.copytree(ROOT / name, home / name, ignore=ignore)
    for name in snapshot.PROGRAMS:
        shutil.copyfile(ROOT / name, home / name)
    return home


def test_a_snapshot_is_whole_and_taken_once_per_content(tree, tmp_path):
    (tree / "training" / "__pycache__").mkdir()
    (tree / "training" / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"stale")
    (tree / "notes.txt").write_text("not code")
    first = snapshot.take_snapshot(tmp_path / "sweep", tree)
    assert first.name == f"code-{snapshot.content_hash(tree)}"
    for name in ("train.py", "configs/train.yaml", "training/sweeps/snapshot.py"):
        assert (first / name).read_bytes() == (tree / name).read_bytes()
    weights = next((tree / "tokenizer" / "pretrained").rglob("*.safetensors"))
    assert (first / weights.relative_to(tree)).read_bytes() == weights.read_bytes()
    assert not list(first.rglob("__pycache__"))
    assert not (first / "notes.txt").exists()

    made = (first / snapshot.FACTS).stat().st_mtime_ns
    assert snapshot.take_snapshot(tmp_path / "sweep", tree) == first
    assert (first / snapshot.FACTS).stat().st_mtime_ns == made
    with (tree / "configs" / "train.yaml").open("a") as file:
        file.write("# changed\n")
    assert snapshot.take_snapshot(tmp_path / "sweep", tree) != first
    assert len(list((tmp_path / "sweep").iterdir())) == 2  # nothing half-made is left


def test_the_hash_sees_names_and_contents(tree):
    hashes = {snapshot.content_hash(tree)}
    # The order of the files and their lengths stay as they were.
    (tree / "configs/data/drives.yaml").rename(tree / "configs/data/drivez.yaml")
    hashes.add(snapshot.content_hash(tree))
    code = (tree / "train.py").read_text()
    (tree / "train.py").write_text(code.replace("Train", "train", 1))
    hashes.add(snapshot.content_hash(tree))
    assert len(hashes) == 3


def test_a_snapshot_knows_the_revision_it_was_taken_from(tmp_path, tree):
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", str(tree)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "code"]):
        subprocess.run([*git, *command], check=True)
    sha = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    # Inside the repository, as a sweep folder usually is: git itself would answer for it.
    taken = snapshot.take_snapshot(tree / "runs", tree)
    subprocess.run([*git, "commit", "-qm", "later", "--allow-empty"], check=True)
    assert snapshot.git_revision(taken) == sha.strip()
    (tree / "train.py").write_text("changed = True\n")
    assert snapshot.git_revision(tree).endswith("+dirty")


def test_a_job_imports_the_snapshot_not_the_tree_nor_what_is_installed(tree, tmp_path):
    taken = snapshot.take_snapshot(tmp_path / "sweep", tree)
    (tree / "training" / "errors.py").write_text("raise RuntimeError('the edited tree')\n")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "show.py").write_text(
        "import training.errors, configs; print(training.errors.__file__, configs.__file__)"
    )
    lines = [*snapshot.setup_lines(taken), f'"{sys.executable}" -m show']
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    # As a job starts: `python -m` in the folder from which it was submitted.
    result = subprocess.run(
        ["bash", "-ec", "\n".join(lines)],
        cwd=tree,
        env=environment | {"PYTHONPATH": f"{tree}:{tmp_path / 'job'}"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    expected = [str(taken / "training/errors.py"), str(taken / "configs/__init__.py")]
    assert result.stdout.splitlines()[0].split() == expected


def test_a_job_composes_from_the_snapshot(tree, tmp_path):
    taken = snapshot.take_snapshot(tmp_path / "sweep", tree)
    with initialize_config_dir(str(tree / "configs"), version_base="1.3"):
        snapshot.read_configs_from(taken / "configs")
        file = tree / "configs" / "experiment" / "gpt_tiny.yaml"
        file.write_text(file.read_text().replace("num_layers: 4", "num_layers: 7"))
        cfg = compose("train", overrides=["+experiment=gpt_tiny"])
        assert cfg.model.network.num_layers == 4
        # Also where Hydra starts over from its search path.
        where = f"hydra.searchpath=[file://{tmp_path}]"
        again = compose("train", overrides=["+experiment=gpt_tiny", where])
        assert again.model.network.num_layers == 4


def launcher(name: str, *overrides: str, folder: Path = ROOT / "configs") -> DictConfig:
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose(
            "train",
            overrides=["+experiment=gpt_tiny", f"hydra/launcher={name}", *overrides],
            return_hydra_config=True,
        )


def test_the_slurm_launcher_composes_with_requeue_and_snapshot():
    cfg = launcher("slurm", "trainer.devices=1")
    slurm = cfg.hydra.launcher
    assert slurm._target_.endswith(".SlurmLauncher")
    assert slurm.signal_delay_s == 120
    assert slurm.additional_parameters.requeue is True
    assert {c._target_ for c in cfg.hydra.callbacks.values()} == {
        *("training.sweeps.snapshot.CodeSnapshot", "training.sweeps.slurm_queue.WatchQueue")
    }
    # Every entry is one that sbatch gets to see.
    from submitit.slurm.slurm import _make_sbatch_string

    known = set(_make_sbatch_string.__code__.co_varnames)
    renamed = {"submitit_folder", "max_num_timeout", "timeout_min", "mem_gb", "tasks_per_node"}
    asked = {key for key in slurm if not key.startswith("_")} - {*renamed, "name"}
    assert asked <= known


def test_slurm_starts_as_many_processes_as_the_trainer_has_devices():
    cfg = launcher("slurm_multinode", "trainer.devices=8", "trainer.num_nodes=2")
    assert (cfg.hydra.launcher.nodes, cfg.hydra.launcher.tasks_per_node) == (2, 8)
    assert unstartable(cfg) is None
    assert "trainer.devices=8" in str(unstartable(launcher("slurm_multinode")))
    one = launcher("slurm", "trainer.devices=2")
    assert "slurm_multinode" in str(unstartable(one))
    assert unstartable(launcher("slurm", "trainer.devices=1")) is None


def test_a_site_has_its_own_launcher_in_three_lines(tree):
    (tree / "configs" / "hydra" / "launcher" / "ours.yaml").write_text(
        "# @package _global_\ndefaults: [slurm]\n"
        "hydra: {launcher: {partition: gpu, gpus_per_node: 1}}\n"
    )
    cfg = launcher("ours", folder=tree / "configs")
    assert (cfg.hydra.launcher.partition, cfg.hydra.launcher.gpus_per_node) == ("gpu", 1)
    assert cfg.hydra.launcher.signal_delay_s == 120
    assert "snapshot" in cfg.hydra.callbacks


def test_a_basic_sweep_takes_no_snapshot():
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=["+experiment=gpt_tiny"], return_hydra_config=True)
    assert not cfg.hydra.callbacks


def test_a_snapshot_that_cannot_be_written_ends_the_submission(tmp_path, capsys):
    cfg = launcher("slurm", "trainer.devices=1")
    (tmp_path / "file").write_text("in the way")
    cfg.hydra.sweep.dir = str(tmp_path / "file" / "sweep")
    with pytest.raises(SystemExit) as end:
        snapshot.CodeSnapshot().on_multirun_start(cfg)
    message = capsys.readouterr().err
    assert end.value.code == 2
    assert message.count("\n") == 1
    assert "paths.runs" in message


def test_the_queue_is_read_as_slurm_prints_it():
    assert job_states("7_0 RUNNING\n7_1 PENDING\n\n8 OUT_OF_MEMORY\n") == {
        **{"7_0": "RUNNING", "7_1": "PENDING", "8": "OUT_OF_MEMORY"}
    }


@pytest.mark.parametrize(
    ("listing", "ended"),
    [
        ("7_0 FAILED\n7_1 RUNNING\n", False),
        ("7_0 FAILED\n7_1 PENDING\n", False),
        ("7_0 FAILED\n7_1 COMPLETED\n", True),
        ("", True),
    ],
)
def test_a_failed_job_does_not_end_the_wait_for_the_others(listing, ended, monkeypatch):
    watcher = make_watcher(every_s=1)
    for job in ("7_0", "7_1"):
        watcher.register_job(job)
    monkeypatch.setattr(subprocess, "check_output", lambda *a, **k: listing.encode())
    assert watcher.is_done("7_0", mode="force") is ended


def test_a_queue_that_does_not_answer_ends_nothing(monkeypatch):
    def refuse(*args, **kwargs):
        raise subprocess.CalledProcessError(1, "squeue")

    watcher = make_watcher(every_s=1)
    watcher.register_job("7")
    monkeypatch.setattr(subprocess, "check_output", refuse)
    assert not watcher.is_done("7", mode="force")
