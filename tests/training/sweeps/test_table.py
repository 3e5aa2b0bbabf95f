"""The table of runs."""

import csv
import json
import time
from pathlib import Path

import pytest

from training.disk.status import write_status
from training.errors import BadInput
from training.sweeps import table as sweep_table


@pytest.fixture
def runs(tmp_path) -> Path:
    """Five runs: three finished, one failed before it had a config, one is lost."""
    folder = tmp_path / "runs"

    def run(name: str, config: str | None, **status) -> Path:
        write_status(folder / name, **status)
        if config is not None:
            (folder / name / "config.yaml").write_text(config)
        return folder / name

    # As resolved by Hydra: what the model refers to stands there once more.
    lr = (
        "name: gpt\nrun: {}\nseed: 0\noptimizer: &shared\n  lr: {}\n  schedule: cosine\n"
        "model:\n  optimizer: *shared\n"
    )
    done = {"state": "finished", "step": 20, "max_steps": 20, "attempts": 1}
    run("deep/b", lr.format("b", 0.01), **done, metrics={"val/loss": 3.5, "val/bits": 5.05})
    run("a", lr.format("a", 0.001), **done | {"attempts": 3}, metrics={"val/loss": 4.25})
    run("Nan", lr.format("n", 0.1), **done, metrics={"val/loss": float("nan")})
    run("failed", None, state="failed", reason="data.root=nowhere:\nno such folder", exit_code=2)
    lost = run("lost", lr.format("l", 0.001), state="running", step=5, max_steps=20, attempts=1)
    status = json.loads((lost / "status.json").read_text())
    (lost / "status.json").write_text(json.dumps(status | {"updated": time.time() - 3600}))
    return folder


def shown(capsys, *arguments: str) -> list[list[str]]:
    sweep_table.main(list(arguments))
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_table_shows_states_steps_differences_metrics_and_reasons(runs, capsys):
    header, *rows = shown(capsys, str(runs))
    assert header == [
        *("run", "state", "step", "attempts", "optimizer.lr", "val/bits", "val/loss", "reason")
    ]
    by_name = {row[0]: row[1:] for row in rows}
    assert list(by_name) == ["Nan", "a", "deep/b", "failed", "lost"]
    assert by_name["deep/b"] == ["finished", "20/20", "1", "0.01", "5.05", "3.5", "-"]
    assert by_name["a"] == ["finished", "20/20", "3", "0.001", "-", "4.25", "-"]
    assert by_name["lost"][:2] == ["lost?", "5/20"]
    assert " ".join(by_name["failed"]).endswith("data.root=nowhere: no such folder")


def test_every_column_is_aligned(runs, capsys):
    sweep_table.main([str(runs)])
    lines = capsys.readouterr().out.splitlines()
    start, end = lines[0].index("state"), lines[0].index("val/loss") + len("val/loss")
    states = ("finished", "failed", "lost?")
    assert all(line[start - 1] == " " and line[start:].startswith(states) for line in lines[1:])
    # Numbers end where their heading ends.
    assert all(line[end - 1] != " " and line[end] == " " for line in lines)


def test_sorting_puts_the_best_first_and_what_has_no_value_last(runs, capsys):
    up = [row[0] for row in shown(capsys, str(runs), "--sort", "val/loss")[1:]]
    down = [row[0] for row in shown(capsys, str(runs), "--sort", "val/loss", "--descending")[1:]]
    assert up[:2] == ["deep/b", "a"]
    assert down[:2] == ["a", "deep/b"]
    assert set(up[2:]) == set(down[2:]) == {"failed", "lost", "Nan"}


def test_a_running_run_is_lost_only_after_a_while(runs, capsys):
    states = {row[0]: row[1] for row in shown(capsys, str(runs), "--lost-after", "90")[1:]}
    assert states["lost"] == "running"


def test_the_csv_holds_everything(runs, tmp_path, capsys):
    file = tmp_path / "table.csv"
    shown(capsys, str(runs), "--csv", str(file), "--max-settings", "0")
    rows = {row["run"]: row for row in csv.DictReader(file.open())}
    assert rows["deep/b"]["optimizer.lr"] == "0.01"
    assert float(rows["a"]["val/loss"]) == 4.25
    assert rows["failed"]["reason"] == "data.root=nowhere: no such folder"


def test_settings_beyond_the_limit_are_counted(runs, capsys):
    sweep_table.main([str(runs), "--max-settings", "0"])
    out = capsys.readouterr().out
    assert "optimizer.lr" not in out
    assert "1 more settings differ" in out


def test_a_damaged_status_hides_no_other_run(runs, capsys):
    (runs / "a" / "status.json").write_text('{"state": "fini')
    states = {row[0]: row[1] for row in shown(capsys, str(runs))[1:]}
    assert states["a"] == "unreadable"
    assert states["deep/b"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere", "no such folder"]),
        (["empty"], ["empty", "holds no run"]),
        (["runs", "--sort", "val/los"], ["val/los", "there are", "val/loss"]),
        (["runs", "--csv", "nowhere/table.csv"], ["nowhere/table.csv", "cannot be written"]),
    ],
)
def test_bad_input_to_the_table_is_refused(arguments, words, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as end:
        sweep_table.main(arguments)
    message = capsys.readouterr().err
    assert end.value.code == 2
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert all(word in message for word in words)


def test_an_unusable_folder_raises_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        sweep_table.find_rows(tmp_path / "nowhere")
