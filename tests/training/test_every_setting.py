"""Every setting in a config comes from a dataclass, is told, and is judged before any work."""

import ast
import copy
import dataclasses
import math
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import hydra_plugins.dashcast_settings  # noqa: F401  (registers the dataclasses)
from drives.sources import source_from_dict
from training.cli import plain
from training.errors import BadInput
from training.help import composed
from training.schemas import (
    SCHEMAS,
    SECTIONS,
    TARGET,
    judged_section,
    judged_settings,
    meanings,
    node_at,
    type_name,
)
from worldmodel.evaluation.evidence import recognised

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("drives", "tokenizer", "worldmodel", "training")
RECIPES = sorted(file.stem for file in (ROOT / "configs/experiment").glob("*.yaml"))
TRAINED = [("train", f"+experiment={recipe}") for recipe in RECIPES]
DATA = [
    ("train", "+experiment=gpt_tiny", f"data={file.stem}", "data.root=x")
    for file in sorted((ROOT / "configs/data").glob("*.yaml"))
]
PARTS = [
    ("train", "+experiment=gpt_tiny", "optimizer=muon"),
    ("train", "+experiment=gpt_tiny", "+text_encoder@model.text=t5"),
    ("train", "+experiment=gpt_tiny", "+text_encoder@model.text=hashed_words"),
    *(("train", "+experiment=tokenizer_tiny", f"quantizer={n}") for n in ("product", "residual")),
]
OTHERS = [
    "eval",
    *(
        str(file.relative_to(ROOT / "configs").with_suffix(""))
        for file in sorted((ROOT / "configs/commands").rglob("*.yaml"))
        if file.stem != "bare"
    ),
]
CARDS = ("card=[teacher_forced,floors,rollout,distance,control,drift]",)
COMMANDS = [(name, *(CARDS if name == "eval" else ())) for name in OTHERS]
CASES = [*TRAINED, *DATA, *PARTS, *COMMANDS]
FOREIGN = ("logger", "hydra")  # settings of classes of others
WRONG = ("abc", math.nan, -1, 0, 10**30)
# Not in a config: of published files, of a command without Hydra, or made of registered settings.
INNER = {
    "GPT2Config": "a published config.json",
    "GenieConfig": "a published config.json",
    "VQGANConfig": "published files alone",
    "Style": "of a VQGANConfig",
    "InferenceConfig": "made of EncodeConfig's settings",
    "RolloutConfig": "made of RolloutSettings, Sampling and DecodingConfig",
    "InverseDynamicsConfig": "fixed by the version of a card",
    "Settings": "what the planner may change of a run",
    "RulerConfig": "of a command without Hydra, which tells and judges it itself",
    "ControlSuiteConfig": "of a command without Hydra, which tells and judges it itself",
    "PlanningConfig": "of a Python interface; no command line takes it",
}


@cache
def values_of(case: tuple[str, ...]) -> dict[str, Any]:
    command, *overrides = case
    cfg = composed(command, overrides)
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, "x")
    return plain(cfg)


def settings_in(values: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Where each setting's node lies, and the setting's name."""
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        if isinstance(value, dict) and value and "methods" not in path:
            yield from settings_in(value, path)
        elif key != TARGET and path.split(".")[0] not in FOREIGN:
            yield where, key


def kind_of(case: tuple[str, ...], values: Any, where: str) -> type | None:
    target = str(node_at(values, where).get(TARGET))
    return SCHEMAS.get(target) or SECTIONS[case[0]].get(where)


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_every_setting_has_a_dataclass_a_type_and_a_meaning(case: tuple[str, ...]) -> None:
    values = values_of(case)
    found = list(settings_in(values))
    for where, name in found:
        kind = kind_of(case, values, where)
        assert kind is not None, f"{where}.{name}: no dataclass is registered for it"
        assert name in meanings(kind), f"{kind.__name__}.{name}: tell what it means"
        assert "Any" not in type_name(get_type_hints(kind)[name]), f"{kind.__name__}.{name}"
    for where in {where for where, _ in found}:  # each can be overridden without a plus
        kind = kind_of(case, values, where)
        assert kind is not None
        fields = {field.name for field in dataclasses.fields(kind) if field.init}
        assert fields <= set(node_at(values, where)), where


@pytest.mark.parametrize("case", [*TRAINED, *PARTS, *COMMANDS], ids=" ".join)
def test_every_setting_is_judged_before_any_work(case: tuple[str, ...]) -> None:
    """A wrong type, NaN, -1, 0 and a huge number: one line that names the setting, or legal."""
    values = copy.deepcopy(values_of(case))
    for where, name in settings_in(values):
        node: Any = node_at(values, where)
        kind, was = kind_of(case, values, where), node[name]
        assert kind is not None
        hint = get_type_hints(kind)[name]
        for wrong in WRONG:
            node[name] = wrong
            told = complaint(case[0], values, where, kind)
            assert "\n" not in told
            assert not told or name in told, told
            if wrong == "abc":
                assert told or "str" in type_name(hint), f"{where}.{name}=abc"
            elif wrong not in (-1, 0):  # NaN is not equal to anything
                assert told, f"{where}.{name}={wrong}"
        node[name] = was


def complaint(command: str, values: Any, where: str, kind: type) -> str:
    """What `training.cli.judge` says, which judges these parts of all; "" if nothing."""
    try:
        if SECTIONS[command].get(where) is kind:
            judged_section(kind, node_at(values, where), where)
        else:
            top = where.split(".")[0]
            judged_settings({top: values[top]})
    except BadInput as error:
        return str(error)
    return ""


def dataclasses_in(module: str, tree: ast.Module) -> Iterator[str]:
    """Dataclasses that their name or their file says are settings."""
    of_settings = module.endswith(".config")
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and "dataclass" in str(
            [ast.unparse(decorator) for decorator in node.decorator_list]
        ):
            named = node.name.endswith(("Config", "Settings", "Source", "Sampling"))
            if of_settings or named:
                yield node.name


def test_every_dataclass_of_settings_is_registered() -> None:
    known = {*SCHEMAS.values(), *(kind for part in SECTIONS.values() for kind in part.values())}
    names = {base.__name__ for kind in known for base in kind.__mro__} | set(INNER)
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    modules = {".".join(f.relative_to(ROOT).with_suffix("").parts): f.read_text() for f in files}
    found = {f"{m}.{n}" for m, text in modules.items() for n in dataclasses_in(m, ast.parse(text))}
    missed = [path for path in sorted(found) if path.rpartition(".")[2] not in names]
    assert not missed, f"register {missed} in hydra_plugins, or say in INNER why not"


def test_a_dataclass_that_nobody_registered_is_found() -> None:
    source = "@dataclass(frozen=True)\nclass MyConfig:\n    x: int = 1\n"
    assert list(dataclasses_in("tokenizer.mine", ast.parse(source))) == ["MyConfig"]


def test_every_registered_dataclass_tells_what_its_fields_mean() -> None:
    for path, kind in SCHEMAS.items():
        if path.split(".")[0] in ROOMS:
            fields = {field.name for field in dataclasses.fields(kind) if field.init}
            assert fields <= set(meanings(kind)), kind.__name__


@pytest.mark.parametrize(
    "name", ["gpt", "keyframes", "masked", "occupancy", "whole_frame", "autoencoder"]
)
def test_python_builds_the_network_of_the_command_line(name: str) -> None:
    """Less what depends on a run: actions are read, and the quantizer is a choice of its own."""
    stage = "tokenizer" if name == "autoencoder" else "worldmodel"
    network = values_of(("train", f"stage={stage}", f"model={name}"))["model"]["network"]
    built = judged_settings(network)
    apart = {"layout": built.layout} if stage == "worldmodel" else {"quantizer": built.quantizer}
    assert built == type(built)(**apart)


@pytest.mark.parametrize("source", ["drives", "tokens", "commavq", "onex_v1", "onex_v2"])
def test_a_root_that_is_not_there_is_told_in_the_same_words(source: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    settings = values_of(("train", f"data={source}", "data.root=x"))["data"]["source"]
    chosen = source_from_dict({**settings, "root": str(gone), "cache": str(tmp_path)})
    for asked in (chosen.planned, chosen.open, lambda: recognised(gone)):
        with pytest.raises(BadInput, match=r"^data\.root=.*gone: no such folder or file;"):
            asked()


def own_values(values: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        if isinstance(value, dict) and value:
            yield from own_values(value, path)
        elif path != "defaults":
            yield path, value


@pytest.mark.slow
def test_recipes_hold_differences_only(tmp_path: Path) -> None:
    """A value that is the same without the recipe's line is a default written twice."""
    configs = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", configs)
    for recipe in RECIPES:
        file, asked = configs / f"experiment/{recipe}.yaml", [f"+experiment={recipe}"]
        written = yaml.safe_load(file.read_text())
        defaults = {"defaults": written["defaults"]} if "defaults" in written else {}
        file.write_text(f"# @package _global_\n{yaml.safe_dump(defaults)}")
        with initialize_config_dir(str(configs), version_base="1.3"):
            without = compose("train", asked)
        twice = [
            path
            for path, value in own_values(written)
            if OmegaConf.select(without, path, default="absent") == value
        ]
        assert not twice, f"{recipe}: {twice}"
        file.write_text((ROOT / f"configs/experiment/{recipe}.yaml").read_text())
