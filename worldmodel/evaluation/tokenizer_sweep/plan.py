"""The plan of a tokenizer sweep: a YAML file with two recipes and the tokenizers to train.

tokenizer: {experiment: tokenizer_tiny, overrides: []}
probe: {experiment: gpt_tiny, overrides: []}    trained on the tokens of each
overrides: []                                   of both
tokenizers:                                     settings of each
  fsq-240: {"model.network.quantizer.levels": [8, 6, 5]}
  fsq-1000: {"model.network.quantizer.levels": [8, 5, 5, 5]}
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

EXAMPLE = Path("configs/tokenizer_sweep/levels.yaml")
REQUIRED = ("tokenizer", "probe", "tokenizers")
DEFAULTS: dict[str, Any] = {"overrides": []}


@dataclass(frozen=True)
class SweepPlan:
    """A sweep file, checked. `name` is the file's name without its ending.

    Attributes:
        tokenizer, probe: arguments of train.py.
        entries: the arguments of each tokenizer, by name.
        overrides: those of the command line, which win over all others.
    """

    name: str
    tokenizer: tuple[str, ...]
    probe: tuple[str, ...]
    entries: dict[str, tuple[str, ...]]
    overrides: tuple[str, ...] = ()

    def tokenizer_config(self, entry: str) -> DictConfig:
        """The composed config of train.py; BadInput for an unknown setting."""
        own = self.entries[entry]
        return self._compose(entry, "tokenizer", [*self.tokenizer, *own, *self.overrides])

    def probe_config(self, entry: str, tokenizer: Path) -> DictConfig:
        """The same for the probe on this tokenizer; it takes all its steps on any data."""
        own = [f"data.tokenizer='{tokenizer}'", "max_passes=null"]
        return self._compose(entry, "probe", [*self.probe, *own, *self.overrides])

    def _compose(self, entry: str, part: str, arguments: Sequence[str]) -> DictConfig:
        run = f"run=${{paths.runs}}/tokenizer_sweep/{self.name}/{entry}/{part}"
        return compose_train([*arguments, run], f"{self.name}, {part} of {entry}")


def read_plan(file: Path, overrides: Sequence[str] = ()) -> SweepPlan:
    """Read a sweep file.

    Raises:
        BadInput: no such file, no YAML, an unknown or missing key, or an unusable value.
    """
    values = read_plan_file(file, REQUIRED, DEFAULTS, EXAMPLE)
    entries = values["tokenizers"]
    if not isinstance(entries, Mapping) or len(entries) < 2:
        raise BadInput(f"{file}: tokenizers: give at least two names with their settings")
    return SweepPlan(
        name=file.stem,
        tokenizer=_recipe(file, "tokenizer", values),
        probe=_recipe(file, "probe", values),
        entries={
            folder_name(f"{file}: tokenizers", name): _settings(file, str(name), settings)
            for name, settings in entries.items()
        },
        overrides=tuple(overrides),
    )


def _recipe(file: Path, key: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Arguments of train.py: the experiment, shared overrides, its own overrides."""
    recipe, shared = values[key], values["overrides"]
    if not isinstance(recipe, Mapping) or set(recipe) - {"overrides"} != {"experiment"}:
        raise BadInput(f"{file}: {key}: {recipe!r}; give {{experiment: NAME, overrides: [...]}}")
    name_in(file, f"{key}.experiment", recipe["experiment"])
    own = recipe.get("overrides", [])
    for name, given in (("overrides", shared), (f"{key}.overrides", own)):
        if not isinstance(given, list):
            raise BadInput(f"{file}: {name}: {given!r}; give a list")
    return (f"+experiment={recipe['experiment']}", *map(str, shared), *map(str, own))


def _settings(file: Path, name: str, settings: Any) -> tuple[str, ...]:
    if not isinstance(settings, Mapping):
        raise BadInput(
            f"{file}: tokenizers.{name}: {settings!r}; give settings, such as "
            "{quantizer.levels: [8, 5, 5, 5]}, or {} for the recipe as it is"
        )
    return tuple(override(str(key), value) for key, value in settings.items())
