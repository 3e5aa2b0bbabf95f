"""The notebooks run from the first cell to the last, on the embedded drives."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent

SHORT = ["trainer.max_steps=10", "trainer.val_check_interval=10", "callbacks.media=null"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encode", "decode", "gpt"])
def test_notebook_runs(name, composed, fit, tmp_path, data_folder, monkeypatch):
    if name == "gpt":
        _, run, _ = fit(
            composed("gpt_tiny", "+debug=worldmodel", *SHORT, "data.source.carracing.seconds=6.0")
        )
        monkeypatch.setenv("DASHCAST_RUN", str(run.folder))
    monkeypatch.setenv("DASHCAST_DATA", str(data_folder / "notebooks"))
    book = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "commit notebooks without outputs"
    client = NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
