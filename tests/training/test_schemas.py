"""Settings come from dataclasses: registered, judged, and told with their types and meanings."""

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hydra import compose, initialize_config_dir

from training.cli import register
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
        pair: 0 .. 1 of a row (of two. No more); a corner.
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
    assert "# [int, int]: 0 .. 1 of a row (of two. No more)\n" in told
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
