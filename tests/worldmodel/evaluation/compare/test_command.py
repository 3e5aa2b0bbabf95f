"""Two checkpoints from the command line: a table, JSON and a page; the truth is decoded once."""

import json
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from training.help import composed as compose
from worldmodel.evaluation import subject
from worldmodel.evaluation.compare import command

SMALL = [
    "card=[teacher_forced,rollout]",
    "cards.teacher_forced.version=few",
    "cards.teacher_forced.num_windows=8",
    "cards.rollout.version=few",
    "cards.rollout.num_clips=1",
    "cards.rollout.horizon_s=0.2",
    "cards.rollout.num_futures=1",
]


def test_two_steps_of_a_run_are_compared(composed, fit, tmp_path, monkeypatch, capsys):
    few = [
        "+debug=fast",
        "callbacks.media=null",
        "trainer.max_steps=8",
        "checkpoints.every_steps=4",
    ]
    _, run, _ = fit(composed("gpt_tiny", *few, "data.source.carracing.num_test=2"))
    steps = sorted(str(folder) for folder in (run.folder / "checkpoints").iterdir())
    assert len(steps) == 2
    decodings = []
    real = subject.clips_of
    monkeypatch.setattr(subject, "clips_of", lambda *a: decodings.append(1) or real(*a))
    monkeypatch.setattr(sys, "argv", ["compare", *steps, *SMALL, f"out={tmp_path}/out"])
    command.main()
    assert decodings == [1]
    result = json.loads((tmp_path / "out/compare.json").read_text())
    rows = {(row["system"], row["score"]): row for row in result["rows"]}
    bits = rows["world model", "bits_per_token"]
    one, two = (score["value"] for score in bits["scores"])
    assert bits["differences"][1]["value"] == pytest.approx(two - one)
    assert rows["uniform", "bits_per_token"]["differences"][1] is None
    page = (tmp_path / "out/compare.html").read_text()
    first, second = (f"debug-gpt_tiny-{Path(step).name}" for step in steps)
    assert f"{second} - {first}" in page
    assert "bits_per_token" in capsys.readouterr().out


def test_one_checkpoint_is_no_comparison(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare", "runs/a"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "1 checkpoints: name two or more" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["drives", "commavq", "mixture"])
def test_data_is_chosen_as_in_an_evaluation(name):
    here, there = (
        OmegaConf.to_container(compose(command, [f"data={name}"]).data)
        for command in ("commands/compare_models", "eval")
    )
    assert here == there
