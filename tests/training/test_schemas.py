"""Settings come from dataclasses: registered, judged, and told with their types and meanings."""

import dataclasses
import importlib
import math
import subprocess
import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from training.cli import judge, register
from training.config import TRAINING
from training.errors import BadInput
from training.help import asked_help, options_of
from training.schemas import (
    SCHEMAS,
    annotated,
    built_from,
    judged_settings,
    meanings,
    node_of,
    path_of,
    type_name,
)

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted(file.stem for file in (ROOT / "configs/experiment").glob("*.yaml"))


@dataclass(frozen=True)
class Inner:
    """A part.

    Attributes:
        x, y: two numbers; more is
            told later.
        kind: which.
    """

    x: int = 1
    y: float = 2.0
    kind: Literal["a", "b"] = "a"
    sizes: Sequence[int] = (1, 2)
    pair: tuple[int, int] = (1, 1)
    maybe: float | None = None
    flag: bool = False

    def __post_init__(self) -> None:
        if self.x < 0:
            raise BadInput(f"x={self.x}: give 0 or more")


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    rate: float = 1e-3


register("inner_of_the_test", "inner", Inner)
register("outer_of_the_test", "outer", Outer)


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("x", "abc", "a valid integer"),
        ("x", 1.5, "a valid integer"),
        ("x", True, "a valid integer"),
        ("x", -1, "0 or more"),
        ("y", "abc", "a valid number"),
        ("y", float("nan"), "give a number"),
        ("kind", "c", "'a' or 'b'"),
        ("sizes", [1, "a"], "a valid integer"),
        ("sizes", 3, "instance of Sequence"),
        ("pair", [1], "required"),
        ("maybe", "x", "a valid number"),
        ("flag", "abc", "a valid boolean"),
        ("nope", 1, "no such setting"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: Any, needed: str) -> None:
    values = node_of(Outer)
    values["inner"] = {**node_of(Inner), name: value}
    with pytest.raises(BadInput) as caught:
        judged_settings({"outer": values})
    assert str(caught.value).startswith("outer.inner")
    assert name in str(caught.value)
    assert needed in str(caught.value) or name == "pair"


def test_right_values_build_the_dataclasses_and_other_nodes_stay() -> None:
    values = node_of(Outer) | {"rate": 1}
    found = judged_settings({"outer": values, "mine": {"_target_": "x.Y", "q": [1]}})
    assert found["outer"] == Outer(rate=1)
    assert found["mine"] == {"_target_": "x.Y", "q": (1,)}


def test_what_holds_a_part_of_the_users_own_is_judged_field_by_field() -> None:
    values = node_of(Outer) | {"inner": {"_target_": "x.Y"}}
    assert judged_settings({"outer": values})["outer"] == values
    with pytest.raises(BadInput, match=r"^outer\.rate='abc': give a valid number$"):
        judged_settings({"outer": values | {"rate": "abc"}})


def test_only_registering_adds_to_what_is_known() -> None:
    """Whether a node is judged does not depend on what a process asked before."""

    @dataclass(frozen=True)
    class Unknown:
        x: int = 1

    before = dict(SCHEMAS)
    assert judged_settings(node_of(Unknown)) == node_of(Unknown)
    assert built_from(Unknown, {"x": 2}) == Unknown(2)
    assert before == SCHEMAS
    for kind in (Outer, Inner):  # Inner lies in Outer
        assert SCHEMAS[path_of(kind)] is kind


def test_types_and_meanings_are_told() -> None:
    assert meanings(Inner)["y"] == "two numbers; more is told later."
    assert type_name(float | None) == "float or null"
    told = annotated({"inner": node_of(Inner), "seed": 0})
    assert "# int: two numbers\n" in told
    assert "# a | b: which\n" in told
    assert yaml.safe_load(told) == {"inner": node_of(Inner), "seed": 0}


def ours() -> dict[str, type]:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        compose("train")
    return {path: kind for path, kind in SCHEMAS.items() if not path.startswith(__name__)}


def test_what_is_registered_is_what_its_path_says_and_has_its_defaults() -> None:
    assert len(ours()) > 15
    for path, kind in ours().items():
        module, _, name = path.rpartition(".")
        named = getattr(importlib.import_module(module), name)
        if any(n == "???" for n in node_of(kind).values()):
            continue  # of a command's own data, such as a token store
        if named is kind:
            assert judged_settings(node_of(kind)) == kind(), path
        else:  # a class that takes such settings, or one that acts on them
            assert issubclass(named, kind) or not dataclasses.is_dataclass(named), path
            assert named(**vars(kind())), path


@pytest.mark.slow
def test_every_config_dataclass_that_a_user_meets_is_registered() -> None:
    """Every field of such a node can be overridden without a plus."""
    known = ours()

    def judge(node: Any, where: str) -> None:
        if not isinstance(node, dict):
            return
        if kind := known.get(str(node.get("_target_"))):
            assert {f.name for f in dataclasses.fields(kind) if f.init} <= set(node), where
        for key, value in node.items():
            judge(value, f"{where}.{key}")

    for recipe in RECIPES:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            cfg = compose("train", overrides=[f"+experiment={recipe}"])
        values = OmegaConf.to_container(cfg, resolve=True)
        judge(values, recipe)
        judged_settings(values)


def settings_of(node: DictConfig, where: str = "") -> Iterator[str]:
    for key in node:
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_interpolation():
            yield from settings_of(value, f"{where}{key}.")
        elif key != "_target_":
            yield f"{where}{key}"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["gpt_tiny", "tokenizer_tiny"])
def test_every_setting_is_judged_before_any_work(recipe: str) -> None:
    """A wrong type, NaN, -1 and 0: one line that names the setting, or a legal config."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=[f"+experiment={recipe}"])
    known, refused, written = ours(), 0, OmegaConf.to_yaml(cfg)
    for name in settings_of(cfg):
        where, _, field_name = name.rpartition(".")
        node = OmegaConf.select(cfg, where) if where else cfg
        kind = known.get(str(node.get("_target_"))) or TRAINING.get(where)
        for value in ("abc", math.nan, -1, 0):
            changed = cfg.copy()
            OmegaConf.update(changed, name, value, merge=False)
            try:
                judge(changed, "train")
                told = ""
            except BadInput as error:
                told = str(error)
            if told:
                # What another setting takes over is judged where it is used.
                assert field_name in told or f"${{{name}}}" in written, told
                assert "\n" not in told
                refused += 1
            else:
                assert not (isinstance(value, float) and math.isnan(value)), name
                hints = typing.get_type_hints(kind) if kind else {}
                assert value != "abc" or hints.get(field_name) not in (int, float, bool), name
    assert refused > 180


def test_help_lists_recipes_and_groups_and_explains_settings() -> None:
    told = asked_help(["--help", "+experiment=gpt_tiny"], "train")
    recipes = told[told.index("== Recipes") : told.index("== Groups")]
    assert {name.strip(" ,\n") for name in recipes.split("==")[2].split(",")} == set(RECIPES)
    groups = told[told.index("== Groups") : told.index("== Settings")]
    assert "data: commavq, drives" in groups
    assert not any(refused in groups for refused in ("search", "ladder", "commands", "debug"))
    assert "# float: peak learning rate" in told
    job = asked_help(["+experiment=gpt_tiny", "--cfg", "job"], "train")
    assert yaml.safe_load(job)["model"]["network"]["dim"] == 192
    assert asked_help(["+experiment=gpt_tiny"], "train") == ""
    assert "fsq" in options_of("quantizer")
    assert "vq_gradient" in options_of("quantizer")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from training.help import asked_help; asked_help(['--help'], 'train');"
        "print({'torch', 'lightning', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_readme_lists_every_recipe() -> None:
    text = (ROOT / "README.md").read_text()
    assert not [recipe for recipe in RECIPES if f"`{recipe}`" not in text]
