"""Reads a ladder: a YAML file with a recipe, its rungs, and the larger runs to predict.

experiment: gpt_tiny            as in +experiment=
overrides: [data=known_entropy] for every rung
x: compute                      6 N x tokens in FLOP; or: parameters (N, embeddings left out)
metric: val/loss                read from the last validation, nats per token
confidence: 0.9                 of every interval
seeds: [0, 1]                   each rung is trained once with each; repeated runs show the noise
rungs:                          settings of each; finished rungs are read, others are trained
  w16: {model.network.dim: 16, trainer.max_steps: 500}
predict:                        trained with the first seed, after the prediction is written
  w64: {model.network.dim: 64, trainer.max_steps: 2000}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from training.command_line import override
from training.disk.places import folder_name
from training.errors import BadInput
from training.sweeps.plan_file import name_in, read_plan_file
from training.sweeps.trials import compose_train

AXES = ("compute", "parameters")
EXAMPLE = Path("configs/ladder/known_entropy.yaml")
REQUIRED = ("experiment", "rungs", "predict")
DEFAULTS: dict[str, Any] = {
    "overrides": [],
    "x": "compute",
    "metric": "val/loss",
    "confidence": 0.9,
    "seeds": [0],
}


@dataclass(frozen=True)
class Rung:
    """One run of a ladder: a unique name, and its settings as overrides."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Ladder:
    """A checked ladder file; `name` is the file name without its suffix."""

    name: str
    experiment: str
    overrides: tuple[str, ...]
    x: str
    metric: str
    confidence: float
    rungs: tuple[Rung, ...]
    predict: tuple[Rung, ...]

    @property
    def folder(self) -> Path:
        """Folder of the prediction, the table, the plot, and the run folders of the rungs."""
        return Path(self.compose(self.rungs[0]).paths.runs) / "ladder" / self.name

    def arguments(self, rung: Rung) -> list[str]:
        """Arguments of train.py that train a rung."""
        run = [f"run=${{paths.runs}}/ladder/{self.name}/{rung.name}"]
        if any(o.startswith("run=") for o in rung.overrides):
            run = []
        return [f"+experiment={self.experiment}", *run, *rung.overrides, *self.overrides]

    def compose(self, rung: Rung) -> DictConfig:
        """The config of one rung, as train.py composes it.

        Raises:
            BadInput: a setting that does not exist.
        """
        return compose_train(self.arguments(rung), f"{self.name}, {rung.name}")


def read_ladder(file: Path, overrides: Sequence[str] = ()) -> Ladder:
    """Read a ladder file; `overrides` of the command line take precedence over its rungs.

    Raises:
        BadInput: no such file, no YAML, an unknown or missing key, or an unusable value.
    """
    values = read_plan_file(file, REQUIRED, DEFAULTS, EXAMPLE)
    if values["x"] not in AXES:
        raise BadInput(f"{file}: x: {values['x']!r}; choose {' or '.join(AXES)}")
    confidence, seeds = values["confidence"], values["seeds"]
    if not isinstance(confidence, float) or not 0 < confidence < 1:
        raise BadInput(f"{file}: confidence: {confidence!r}; give a share such as 0.9")
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        raise BadInput(f"{file}: seeds: {seeds!r}; give a list of numbers, such as [0, 1]")
    if not isinstance(values["overrides"], list):
        raise BadInput(f"{file}: overrides: {values['overrides']!r}; give a list")
    common = tuple(str(o) for o in values["overrides"])
    rungs = _rungs(file, "rungs", values["rungs"], common, seeds)
    larger = _rungs(file, "predict", values["predict"], common, seeds[:1])
    twice = {r.name for r in rungs} & {r.name for r in larger}
    if twice:
        raise BadInput(f"{file}: {min(twice)} is among the rungs and in predict; leave one out")
    return Ladder(
        name=file.stem,
        experiment=name_in(file, "experiment", values["experiment"]),
        overrides=tuple(overrides),
        x=values["x"],
        metric=name_in(file, "metric", values["metric"]),
        confidence=confidence,
        rungs=rungs,
        predict=larger,
    )


def _rungs(
    file: Path, key: str, value: Any, common: tuple[str, ...], seeds: list[int]
) -> tuple[Rung, ...]:
    """One rung per name and seed; settings of a rung take precedence over common ones."""
    if not isinstance(value, Mapping) or not value:
        raise BadInput(f"{file}: {key}: give names with their settings, such as w16: {{...}}")
    rungs = []
    for name, settings in value.items():
        if not isinstance(settings, Mapping) or not settings:
            raise BadInput(
                f"{file}: {key}.{name}: {settings!r}; give settings, such as "
                "{model.network.dim: 16}"
            )
        folder_name(f"{file}: {key}", name)
        own = tuple(override(str(k), v) for k, v in settings.items())
        for seed in seeds:
            rungs.append(Rung(f"{name}-seed{seed}", (*common, f"seed={seed}", *own)))
    return tuple(rungs)
