"""Bad input ends before any training, with one clear message, exit code 2, nothing written."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """`refused("train", args, words)`: the command in an empty folder ends as bad input must."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def check(program: str, args: list[str], words: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", [f"{program}.py", *args])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(program).main()
        shown = capsys.readouterr().err
        assert end.value.code == 2, shown
        assert shown.startswith("error: ")
        assert shown.count("\n") == 1, shown
        for word in words:
            assert word in shown

    return check


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["+experiment=gpt_tiny", "tokenizer_base"]),
        (["+experiment=gpt_tny"], ["gpt_tny", "did you mean", "gpt_tiny"]),
        (["experiment=gpt_tiny"], ["write +experiment=gpt_tiny, with the plus"]),
        (["+experiment="], ["experiment=", "no such experiment", "gpt_tiny"]),
        (["+experiment=gpt_tiny", "model="], ["model=", "no such model", "whole_frame"]),
        (["+experiment=gpt_tiny", "search=x"], ["search", "no such setting"]),
        (["+search=gpt_tiny"], ["python -m training.search configs/search/gpt_tiny.yaml"]),
        (["ladder=quick"], ["python -m training.scaling configs/ladder/quick.yaml"]),
        (["gpt_tiny"], ["write +experiment=gpt_tiny"]),
        (["--experiment", "gpt_tiny"], ["takes no dashes", "+experiment=NAME"]),
        (["--model=gpt"], ["takes no dashes; write model=gpt"]),
        (["+experiment=5"], ["experiment=5: no such experiment", "gpt_tiny"]),
        (["experiment=[gpt_tiny]"], ["write +experiment=gpt_tiny, with the plus"]),
        (["debug=worldmodel"], ["no such debug", "fast", "+debug=NAME"]),
        (["+experiment=gpt_tiny", "nope.x=1", "data=nope"], ["nope"]),
        (
            ["+experiment=gpt_tiny", "++model.network.n_layer=3"],
            ["model.network.n_layer", "did you mean num_layers"],
        ),
        (["+experiment=gpt_tiny", "run=runs/a=b"], ["""write "run='runs/a=b'", with the quotes"""]),
        (["+experiment=gpt_tiny", "run=runs/a (1)"], ["""write "run='runs/a (1)'", with"""]),
        (["+experiment=gpt_tiny", "trainer.max_steps"], ["write trainer.max_steps=VALUE"]),
        (["+experiment=gpt_tiny", "run=${nope}"], ["nope", "not found"]),
        (["+experiment=gpt_tiny", "optimzer.lr=1"], ["optimzer.lr", "optimizer.lr"]),
        (["+experiment=gpt_tiny", "data=comavq"], ["comavq", "commavq"]),
        (["+experiment=gpt_tiny", "data=commavq"], ["data.root"]),
        (["+experiment=gpt_tiny", "data.root=nowhere"], ["nowhere", "no such folder"]),
        (["+experiment=gpt_tiny", "optimizer.schedule=cosin"], ["cosin", "cosine"]),
        (["+experiment=gpt_tiny", "seed=abc"], ["seed='abc'", "give a valid integer"]),
        (["+experiment=gpt_tiny", "compile=abc"], ["compile='abc'", "give a valid boolean"]),
        (["+experiment=gpt_tiny", "model.network.dim=x"], ["model.network.dim", "valid integer"]),
        (["+experiment=gpt_tiny", "ckpt=nowhere"], ["nowhere"]),
        (["+experiment=gpt_tiny", "data.tokenizer=nowhere"], ["nowhere", "carracing"]),
        (
            ["+experiment=tokenizer_tiny", "model.network.image_size=[63,64]"],
            ["63", "multiples"],
        ),
    ],
)
def test_bad_training_input_is_refused(args, words, refused, tmp_path):
    refused("train", args, words)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_root_and_a_foreign_checkpoint_are_refused(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    refused("train", ["+experiment=gpt_tiny", "data.root=empty"], ["holds no drives"])
    (tmp_path / "model.ckpt").write_bytes(b"not ours")
    refused("eval", ["ckpt=model.ckpt"], ["model.ckpt", "not a dashcast checkpoint"])
    refused("eval", [], ["ckpt"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "model.ckpt"]


def test_help_answers_at_once_and_names_the_recipes(tmp_path):
    began = os.times()
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    ended = os.times()
    assert result.returncode == 0
    for word in ("+experiment=", "gpt_tiny", "tokenizer_base", "optimizer", "max_steps"):
        assert word in result.stdout
    # What makes it slow is importing torch; the clock only guards against the absurd. It counts
    # work, not waiting: other programs on the same cores make it no slower.
    assert "| torch\n" not in result.stderr
    assert ended.children_user - began.children_user < 30
