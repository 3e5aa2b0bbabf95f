"""What is printed to be typed comes back as it was: through a shell, and through Hydra."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from training.command_line import MOST_NAMED, named_in, near, typed

VALUES = (
    "runs/a",
    "/tmp/a",
    "runs/a=b",
    "runs/a b",
    "runs/(1)",
    "a,b",
    "it's",
    'say "so"',
    "a\\'b",
    "back\\slash",
    "ends\\",
    "$HOME",
    "`x`",
    "a!b",
    "[1]",
    "{a}",
    "true",
    "null",
    "12",
    "1e3",
    "",
    "x:y",
    "~/a",
    "\u00fc",
    3,
    0.5,
    True,
    None,
)


@pytest.mark.parametrize("value", VALUES)
def test_what_is_typed_comes_back(value):
    (word,) = shlex.split(typed("run", value))
    assert OverridesParser.create().parse_override(word).value() == value


def test_plain_paths_need_no_quotes():
    assert typed("ckpt", str(Path("runs/gpt_tiny"))) == "ckpt=runs/gpt_tiny"
    assert typed("run", "runs/lr=1") == "\"run='runs/lr=1'\""


def test_a_message_names_what_is_close_or_few():
    known = [f"model.network.width_{i}" for i in range(MOST_NAMED + 1)]
    assert near("model.network.width_9x", known).startswith("did you mean model.network.width_9")
    far = near("zzz", known)
    assert len(far) < 100
    assert f"none of {len(known)} names" in far
    assert "--help" in far
    assert near("zzz", known[:2]) == "there are: model.network.width_0, model.network.width_1"


def test_what_is_no_setting_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1,w=2").mkdir()
    given = ["runs/a", "split=val", "lr=1,w=2", "--cfg=job"]
    named = ["split=val", "--cfg=job", "tokenizers=[runs/a,'lr=1,w=2']"]
    assert named_in(given, "tokenizers") == named
