"""The notebooks run from the first cell to the last, on the embedded drives."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent

SHORT = ["trainer.max_steps=10", "trainer.val_check_interval=10", "callbacks.media=null"]


EVALUATION = (
    "card=[teacher_forced,rollout] cards.teacher_forced.version=few cards.rollout.version=few "
    "cards.teacher_forced.num_windows=8 cards.rollout.num_clips=2 cards.rollout.horizon_s=0.4"
)


def shortened(ladder: str) -> str:
    """A ladder of a few steps per rung."""
    steps = re.sub(r"max_steps: (\d+)", lambda m: f"max_steps: {int(m[1]) // 20}", ladder)
    return steps.replace("num_val_windows=5994", "num_val_windows=64")


@pytest.fixture
def execute(tmp_path, data_folder, monkeypatch):
    monkeypatch.setenv("DASHCAST_DATA", str(data_folder / "notebooks"))

    def run(name):
        book = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
        assert not any(c.get("outputs") for c in book.cells), "commit notebooks without outputs"
        client = NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
        client.execute()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encode", "decode", "compare_tokenizers"])
def test_notebook_runs(name, execute):
    execute(name)


@pytest.mark.slow
def test_notebooks_of_a_world_model_run(composed, fit, execute, tmp_path, monkeypatch):
    short = composed("gpt_tiny", "+debug=fast", *SHORT, "data.source.carracing.seconds=6.0")
    _, run, _ = fit(short)
    monkeypatch.setenv("DASHCAST_RUN", str(run.folder))
    monkeypatch.setenv("DASHCAST_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DASHCAST_EVAL", EVALUATION)
    execute("gpt")
    execute("evaluate")
    execute("compress")


@pytest.mark.slow
def test_the_notebook_of_an_occupancy_model_runs(composed, fit, execute, monkeypatch):
    _, run, _ = fit(composed("occupancy_tiny", "+debug=fast", *SHORT))
    monkeypatch.setenv("DASHCAST_RUN", str(run.folder))
    execute("occupancy")


@pytest.mark.slow
def test_the_notebook_of_a_ladder_runs(execute, tmp_path, monkeypatch):
    ladder = tmp_path / "quick.yaml"
    ladder.write_text(shortened((ROOT / "configs/ladder/quick.yaml").read_text()))
    monkeypatch.setenv("DASHCAST_LADDER", str(ladder))
    monkeypatch.setenv("DASHCAST_RUNS", str(tmp_path / "runs"))
    execute("scaling")


def test_every_notebook_is_run_here():
    here = Path(__file__).read_text()
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        assert f'"{file.stem}"' in here
