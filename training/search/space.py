"""Reads a search plan: a YAML file with an experiment, a metric and a space of settings.

experiment: gpt_tiny            as in +experiment=
overrides: [trainer.max_steps=400]
metric: val/loss                read at every validation
direction: minimize             or maximize
num_trials: 30
seed: 0
pruner: {startup_trials: 5, warmup_steps: 100}      or null: every trial runs to its end
space:
  optimizer.lr: {log_uniform: [1.0e-4, 1.0e-2]}
  model.network.dropout: {uniform: [0.0, 0.3]}
  model.network.num_layers: {int: [2, 6]}
  optimizer.schedule: {categorical: [cosine, wsd]}
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.errors import BadInput
from training.sweeps.plan_file import name_in, read_plan_file

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

KINDS = ("log_uniform", "uniform", "int", "categorical")
EXAMPLE = Path("configs/search/gpt_tiny.yaml")
DIRECTIONS = ("minimize", "maximize")
REQUIRED = ("experiment", "metric", "num_trials", "space")
DEFAULTS: dict[str, Any] = {
    "direction": "minimize",
    "overrides": [],
    "seed": 0,
    "pruner": {"startup_trials": 5, "warmup_steps": 0},
}


@dataclass(frozen=True)
class Setting:
    """One dimension of the space: a setting of the config, and its possible values."""

    key: str
    kind: str
    values: tuple[Any, ...]

    def distribution(self) -> "BaseDistribution":
        from optuna import distributions as d

        if self.kind == "int":
            return d.IntDistribution(*self.values)
        if self.kind == "categorical":
            return d.CategoricalDistribution(self.values)
        low, high = self.values
        return d.FloatDistribution(low, high, log=self.kind == "log_uniform")


@dataclass(frozen=True)
class SearchPlan:
    """A checked search file; `name` is the file name without its suffix."""

    name: str
    experiment: str
    metric: str
    direction: Literal["minimize", "maximize"]
    num_trials: int
    seed: int
    overrides: tuple[str, ...]
    space: tuple[Setting, ...]
    startup_trials: int | None
    warmup_steps: int

    def identity(self) -> dict[str, Any]:
        """The entries that must stay equal when a search continues; `num_trials` may change."""
        facts = {k: v for k, v in vars(self).items() if k not in ("name", "num_trials", "space")}
        space = {s.key: {s.kind: list(s.values)} for s in self.space}
        return {**facts, "overrides": list(self.overrides), "space": space}


def read_plan(file: Path) -> SearchPlan:
    """Read and check a search file.

    Raises:
        BadInput: there is no such file, it is no YAML, or an entry is unknown, missing or wrong.
    """
    content = read_plan_file(file, REQUIRED, DEFAULTS, EXAMPLE)
    for key in REQUIRED:
        if not content[key]:
            raise BadInput(f"{file}: {key}: missing")
    return _checked(file, content)


def _checked(file: Path, content: dict[str, Any]) -> SearchPlan:
    def need(key: str, right: Callable[[Any], bool], what: str) -> None:
        if not right(content[key]):
            raise BadInput(f"{file}: {key}: {content[key]!r}: needs {what}")

    need("direction", lambda v: v in DIRECTIONS, " or ".join(DIRECTIONS))
    need("num_trials", lambda v: _whole(v) and v > 0, "a whole number above 0")
    need("seed", lambda v: _whole(v) and v >= 0, "a whole number from 0 on")
    need(
        "overrides",
        lambda v: isinstance(v, list) and all(isinstance(o, str) and "=" in o for o in v),
        "a list of overrides such as [trainer.max_steps=400]",
    )
    need("space", lambda v: isinstance(v, dict), "settings, each with a range")
    pruner = {} if content["pruner"] is None else content["pruner"]
    allowed = DEFAULTS["pruner"]
    need(
        "pruner",
        lambda _: (
            isinstance(pruner, dict)
            and set(pruner) <= set(allowed)
            and all(_whole(v) and v >= 0 for v in pruner.values())
        ),
        "null, or startup_trials and warmup_steps",
    )
    filled = {**allowed, **pruner}
    return SearchPlan(
        name=file.stem,
        experiment=name_in(file, "experiment", content["experiment"]),
        metric=name_in(file, "metric", content["metric"]),
        direction=content["direction"],
        num_trials=content["num_trials"],
        seed=content["seed"],
        overrides=tuple(content["overrides"]),
        space=tuple(_setting(file, str(k), v) for k, v in content["space"].items()),
        startup_trials=filled["startup_trials"] if content["pruner"] is not None else None,
        warmup_steps=filled["warmup_steps"],
    )


def _setting(file: Path, key: str, given: Any) -> Setting:
    where = f"{file}: space.{key}: {given!r}"
    if not isinstance(given, dict) or len(given) != 1 or next(iter(given)) not in KINDS:
        raise BadInput(f"{where}: needs one of {', '.join(KINDS)}, such as {{int: [2, 6]}}")
    kind, values = next(iter(given.items()))
    if not isinstance(values, list) or not values:
        raise BadInput(f"{where}: needs a list")
    if kind == "categorical":
        if not all(isinstance(v, str | bool) or _finite(v) for v in values):
            raise BadInput(f"{where}: needs words, numbers or true and false")
        return Setting(key, kind, tuple(values))
    if len(values) != 2 or not all(_finite(v) for v in values):
        raise BadInput(f"{where}: needs two numbers, [low, high]")
    low, high = values
    if not low < high or (kind == "log_uniform" and low <= 0):
        raise BadInput(f"{where}: needs low < high{', above 0' * (kind == 'log_uniform')}")
    if kind == "int" and not (_whole(low) and _whole(high)):
        raise BadInput(f"{where}: needs whole numbers")
    convert = int if kind == "int" else float
    return Setting(key, kind, (convert(low), convert(high)))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
