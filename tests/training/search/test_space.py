"""What a search accepts, and that what is shipped names settings that exist."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from search_plan import written

from training.command_line import override
from training.errors import BadInput
from training.search import search
from training.search.space import read_plan

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"experiment": None}, ["experiment", "missing"]),
        ({"metrik": "val/loss"}, ["metrik", "no such key", "metric"]),
        ({"direction": "down"}, ["direction", "down", "minimize"]),
        ({"num_trials": 2.5}, ["num_trials", "2.5", "whole"]),
        ({"overrides": "seed=1"}, ["overrides", "seed=1", "list"]),
        ({"pruner": {"patience": 1}}, ["pruner", "patience", "startup_trials"]),
        ({"space": {"optimizer.lr": [1e-4, 1e-2]}}, ["optimizer.lr", "log_uniform"]),
        (
            {"space": {"optimizer.lr": {"log_uniform": ["low", 1.0]}}},
            ["optimizer.lr", "two numbers"],
        ),
        ({"space": {"optimizer.lr": {"uniform": [2, 1]}}}, ["optimizer.lr", "low < high"]),
        ({"space": {"optimizer.lr": {"log_uniform": [0, 1]}}}, ["optimizer.lr", "above 0"]),
        ({"space": {"seed": {"int": [0, 1.5]}}}, ["seed", "whole"]),
        ({"space": {"optimizer.schedule": {"categorical": []}}}, ["optimizer.schedule", "list"]),
        ({"space": {"optimzer.lr": {"uniform": [0, 1]}}}, ["optimzer.lr", "optimizer.lr"]),
        ({"overrides": ["optimzer.lr=1"]}, ["optimzer.lr", "did you mean"]),
        ({"experiment": "gpt_tny"}, ["gpt_tny", "gpt_tiny"]),
    ],
)
def test_a_bad_search_is_refused_with_nothing_written(
    changes, words, tmp_path, monkeypatch, capsys
):
    file = written(tmp_path, **changes)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        search.main([str(file)])
    message = capsys.readouterr().err
    assert end.value.code == 2
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert [word for word in words if word not in message] == []
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", [None, "a: [", "- 1"])
def test_what_is_no_search_file_is_refused(text, tmp_path):
    file = tmp_path / "space.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadInput, match=r"space\.yaml"):
        read_plan(file)


@pytest.mark.parametrize(
    ("value", "kind"), [(0.0003, float), (3, int), (True, bool), ("wsd", str), ("it's a", str)]
)
def test_a_value_reaches_the_config_with_its_type(value, kind):
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=["+experiment=gpt_tiny", override("name", value)])
    assert type(cfg.name) is kind
    assert cfg.name == value


def test_the_shipped_search_and_the_wandb_sweep_name_settings_that_exist():
    plan = read_plan(ROOT / "configs/search/gpt_tiny.yaml")
    for end in (0, -1):
        values = [override(s.key, s.values[end]) for s in plan.space]
        search.compose(plan, values)
    sweep = yaml.safe_load((ROOT / "configs/search/wandb_gpt_tiny.yaml").read_text())
    assert set(sweep["parameters"]) == {s.key for s in plan.space}


def test_what_a_wandb_agent_would_run_composes(monkeypatch):
    from wandb.sdk.launch.sweeps import utils

    sweep = yaml.safe_load((ROOT / "configs/search/wandb_gpt_tiny.yaml").read_text())
    chosen = {
        key: {"value": space["values"][0] if "values" in space else space["max"]}
        for key, space in sweep["parameters"].items()
    }
    filled = utils.create_sweep_command_args({"args": chosen})
    filled |= {"env": ["/usr/bin/env"], "program": [sweep["program"]]}
    argv: list[str] = []
    for part in utils.create_sweep_command(sweep["command"]):
        whole = part.startswith("${") and part.endswith("}")
        argv += filled[part[2:-1]] if whole else [part]
    assert argv[:3] == ["/usr/bin/env", "python", "train.py"]
    assert (ROOT / argv[2]).is_file()
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=argv[3:])
    assert cfg.run.endswith("sweeps/wandb/abc123")
    assert cfg.optimizer.muon_lr == sweep["parameters"]["optimizer.muon_lr"]["max"]
