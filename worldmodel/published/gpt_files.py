"""Shared by the adapters of published GPTs: files, settings, shapes, and filling the network."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drives.tokens.store import TokenSpec
from training.disk.judging import judged
from training.disk.records import read_json
from training.errors import BadInput
from training.foreign.weights import Tensors, fill
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.published.opened import OpenedWorldModel


def weights_file(files: Sequence[Path], beside: Sequence[str] = (".json",)) -> Path:
    """The only file of weights; the other files have a suffix in `beside`.

    Raises:
        BadInput: there is no file of weights, or more than one.
    """
    found = [file for file in files if file.suffix not in beside]
    if len(found) != 1:
        raise BadInput(
            f"ckpt: {len(found)} files of weights among {', '.join(map(str, files))}; give one, "
            f"and beside it only {' or '.join(beside)}"
        )
    return found[0]


def settings(files: Sequence[Path], weights: Path, kind: type[Any]) -> dict[str, Any]:
    """Settings from the .json among the files, else from config.json beside the weights, else none.

    They may be below "model", or below "variants" if several files share one json.

    Args:
        kind: a dataclass whose fields are the settings to read, with their types, all optional.

    Raises:
        BadInput: the file is missing or no JSON object, or a setting has another type.
    """
    given = [file for file in files if file.suffix == ".json"]
    file = given[0] if given else weights.with_name("config.json")
    if not given and not file.is_file():
        return {}
    values = read_json(file)
    if not isinstance(values, dict):
        raise BadInput(f"{file}: is no JSON object; give the published config.json")
    variants = values.get("variants")
    for variant in variants.values() if isinstance(variants, dict) else ():
        if isinstance(variant, dict) and variant.get("weights") == weights.name:
            values = variant
    model = values.get("model")
    values = model if isinstance(model, dict) else values
    known = {field.name for field in fields(kind)}
    read = {k: v for k, v in values.items() if k in known and v is not None}
    return {k: v for k, v in asdict(judged(kind, read, str(file))).items() if v is not None}


def grid_of(
    option: Sequence[int] | None, num_tokens: int, known: tuple[int, int], where: Path
) -> tuple[int, int]:
    """(rows, columns) of a frame of `num_tokens`: from the option, else as published, else one row.

    Raises:
        BadInput: the option has another number of tokens.
    """
    grid = known if known[0] * known[1] == num_tokens else (1, num_tokens)
    if option is not None:
        grid = (int(option[0]), int(option[1]))
    if grid[0] * grid[1] != num_tokens:
        raise BadInput(f"grid={list(grid)}: {where} has {num_tokens} tokens per frame; give those")
    return grid


def num_layers(tensors: Tensors, prefix: str, where: Path) -> int:
    """Number of layers in a state dict: the numbers after `prefix` are 0 .. n - 1.

    Raises:
        BadInput: there is no layer, or a number is missing.
    """
    digits = (key.removeprefix(prefix).split(".")[0] for key in tensors if key.startswith(prefix))
    found = {int(digit) for digit in digits if digit.isdigit()}
    if not found or found != set(range(len(found))):
        raise BadInput(f"{where}: its layers ({prefix}N) are {sorted(found)}; give all of them")
    return len(found)


def tensor(tensors: Tensors, key: str, where: Path) -> Tensor:
    """A matrix that determines a width of the network; BadInput if it is missing or no matrix."""
    found = tensors.get(key)
    if found is None or found.ndim != 2:
        raise BadInput(f"{where}: lacks the matrix {key}; is it of another family?")
    return found


def fitted(
    config: GPTConfig,
    spec: TokenSpec,
    sources: dict[str, str],
    tensors: Tensors,
    left_out: Iterable[str],
    where: Path,
) -> OpenedWorldModel:
    """Fill the network of this config; raises as `fill` does."""
    with torch.device("meta"):
        targets = dict(build_dynamics(config, spec, 0).state_dict())
    weights, unused = fill(targets, sources, tensors, left_out, str(where))
    return OpenedWorldModel(config, spec, (), weights, unused)
