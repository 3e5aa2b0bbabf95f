"""Every plain value of a file is judged by its type."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from training.disk.judging import judged
from training.errors import BadInput


@dataclass(frozen=True)
class Inner:
    size: int = 4
    scale: float = 1.0

    def __post_init__(self):
        if self.size < 1:
            raise BadInput(f"size={self.size}: give at least 1")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    grid: tuple[int, int]
    mode: Literal["fast", "slow"]
    name: str | None = None
    more: tuple[Inner, ...] = ()
    tags: dict[str, int] = field(default_factory=dict)


GOOD = {"inner": {"size": 8, "scale": 2}, "grid": [2, 3], "mode": "slow", "more": [{"size": 1}]}


def test_plain_values_become_nested_dataclasses():
    found = judged(Outer, GOOD, "here")
    assert found == Outer(Inner(8, 2.0), (2, 3), "slow", None, (Inner(1),))
    assert judged(Outer, {**GOOD, "grid": (2, 3), "name": "a"}, "here").name == "a"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": [2, 3, 4]}, r"grid"),
        ({"grid": ["2", 3]}, r"grid\.0='2': give a valid integer"),
        ({"inner": {"size": 1.5}}, r"inner\.size=1\.5"),
        ({"inner": {"size": True}}, r"inner\.size=True"),
        ({"inner": {"size": 0}}, r"inner: size=0: give at least 1"),
        ({"inner": {"scale": float("nan")}}, r"inner\.scale=nan: give a finite number"),
        ({"inner": {"scale": float("inf")}}, r"inner\.scale=inf"),
        ({"inner": {"scale": None}}, r"inner\.scale=None"),
        ({"mode": "other"}, r"mode='other': give 'fast' or 'slow'"),
        ({"colour": 1}, r"colour is unknown"),
        ({"more": [{"colour": 1}]}, r"more\.0\.colour is unknown"),
        ({"name": 3}, r"name=3"),
        ({"inner": 3}, r"inner=3"),
    ],
)
def test_every_value_is_judged(change, message):
    with pytest.raises(BadInput, match=f"here: {message}"):
        judged(Outer, {**GOOD, **change}, "here")


def test_what_is_missing_is_named_and_no_object_is_no_dataclass():
    with pytest.raises(BadInput, match=r"here: inner is missing; grid is missing; mode is missing"):
        judged(Outer, {}, "here")
    for values in ([], 3, None, "text"):
        with pytest.raises(BadInput, match="here: "):
            judged(Outer, values, "here")
    with pytest.raises(BadInput, match="plain values"):
        judged(Outer, {"inner": object()}, "here")


def test_infinity_passes_where_it_is_allowed():
    found = judged(Inner, {"scale": float("inf")}, "here", finite=False)
    assert found.scale == float("inf")
