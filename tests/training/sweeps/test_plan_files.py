"""Every value of a plan file is judged before any work: a ladder's, a search's, a sweep's."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from training.disk.places import writable_folder
from training.scaling import scaling
from training.search import search
from worldmodel.evaluation.tokenizer_sweep import sweep

SMALL = ["logger=none", "trainer.accelerator=cpu", "trainer.devices=1"]
PLANS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ladder": (
        scaling.main,
        {
            "experiment": "gpt_tiny",
            "overrides": SMALL,
            "x": "compute",
            "metric": "val/loss",
            "confidence": 0.9,
            "seeds": [0],
            "rungs": {"a": {"model.network.dim": 48}},
            "predict": {"b": {"model.network.dim": 96}},
        },
    ),
    "search": (
        search.main,
        {
            "experiment": "gpt_tiny",
            "overrides": SMALL,
            "metric": "val/loss",
            "direction": "minimize",
            "num_trials": 2,
            "seed": 0,
            "pruner": {"startup_trials": 5, "warmup_steps": 0},
            "space": {"optimizer.lr": {"uniform": [1.0e-4, 1.0e-2]}},
        },
    ),
    "sweep": (
        sweep.main,
        {
            "tokenizer": {"experiment": "tokenizer_tiny", "overrides": []},
            "probe": {"experiment": "gpt_tiny", "overrides": []},
            "overrides": SMALL,
            "tokenizers": {"a": {"seed": 1}, "b": {"seed": 2}},
        },
    ),
}
BAD = ["abc", "", math.nan, -1, 0, 10**30, True, None, [], {"abc": 1}]


class _WorkError(Exception):
    """A plan was accepted: its first run is to be trained."""


@pytest.fixture
def outcome(tmp_path, monkeypatch, capsys):
    """`outcome(name, values)`: "work", or the line with which a plan is refused."""
    monkeypatch.chdir(tmp_path)

    def begin(*_: Any, **__: Any) -> None:
        raise _WorkError

    for module in (scaling, sweep):
        monkeypatch.setattr(module, "check", begin)
    monkeypatch.setattr(search, "alone_in", begin)
    monkeypatch.setattr(search, "made_folder", writable_folder)

    def run(name: str, values: Any) -> str:
        Path("plan.yaml").write_text(yaml.safe_dump(values))
        capsys.readouterr()
        try:
            PLANS[name][0](["plan.yaml"])
        except _WorkError:
            said = "work"
        except SystemExit as end:
            said, code = capsys.readouterr().err, end.code
        assert said == "work" or (code == 2 and said.startswith("error: ")), said
        assert said.count("\n") == (said != "work"), said
        assert [p.name for p in tmp_path.iterdir()] == ["plan.yaml"]
        return said

    return run


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value of a plan, those of mappings and lists too."""
    inner = values.items() if isinstance(values, dict) else ()
    inner = enumerate(values) if isinstance(values, list) else inner
    return [p for key, value in inner for p in [(*path, key), *places(value, (*path, key))]]


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_every_value_of_a_plan_is_judged_before_any_work(name, outcome):
    plan = PLANS[name][1]
    assert outcome(name, plan) == "work"
    refused = 0
    for place in places(plan):
        for bad in BAD:
            values = copy.deepcopy(plan)
            node: Any = values
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = bad
            refused += outcome(name, values) != "work"
    assert refused > 0.7 * len(places(plan)) * len(BAD)


@pytest.mark.parametrize("key", ["experiment", "metric", "rungs", "predict", "seeds", "confidence"])
def test_a_ladder_is_refused_for_each_of_its_own_fields(key, outcome):
    for bad in ([math.nan], -1, True, None):
        assert key in outcome("ladder", {**PLANS["ladder"][1], key: bad})


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", ".hidden", "${paths.data}"])
def test_names_of_runs_cannot_lead_out_of_their_folder(name, outcome):
    settings = {"trainer.max_steps": 1}
    for kind, key in (("ladder", "rungs"), ("sweep", "tokenizers")):
        plan = {**PLANS[kind][1], key: {name: settings, "b": settings}}
        assert "to name a folder" in outcome(kind, plan)


@pytest.mark.parametrize("kind", ["ladder", "search", "sweep"])
def test_runs_are_judged_and_their_folder_is_looked_at_before_any_work(kind, outcome):
    plan = PLANS[kind][1]
    several = {"ladder": "predict", "search": "space", "sweep": "tokenizers"}[kind]
    bad: dict[str, Any] = {"fine": {"seed": 3}, "last": {"optimizer.lr": 99}}
    if kind == "search":
        bad = {"optimizer.lr": {"uniform": [0.1, 99]}}
    assert "optimizer.lr=99" in outcome(kind, {**plan, several: bad})
    nowhere = {**plan, "overrides": [*SMALL, "paths.runs=/proc/nowhere"]}
    assert "paths.runs=/proc/nowhere" in outcome(kind, nowhere)
