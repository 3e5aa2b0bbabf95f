"""Checkpoints that ship with the package and are opened by their names alone.

They are exports: half precision, no optimizer state, figures in the manifest, and no path of the
machine that trained them.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from training.checkpoints.folder import write_checkpoint
from training.checkpoints.manifests import MANIFEST
from training.errors import BadInput


def named(name: str | Path, folder: Path, setting: str) -> Path:
    """The shipped checkpoint of this name, or else the run or checkpoint at this path.

    A shipped name wins over a folder of that name in the working directory; ./NAME is that one.

    Args:
        folder: where those of this kind lie.
        setting: what names it, for the message.

    Raises:
        BadInput: there is neither.
    """
    shipped = sorted(file.parent.name for file in folder.glob(f"*/{MANIFEST}"))
    path = folder / str(name) if str(name) in shipped else Path(name)
    if not path.exists():
        raise BadInput(
            f"{setting}={name}: no such run or checkpoint; shipped: {', '.join(shipped) or 'none'}"
        )
    return path


def run_folder(checkpoint: Path, runs: str | Path, *shipped: Path) -> Path:
    """Where a checkpoint's run lies, for what is made of it.

    Args:
        runs: among these, what ships with the package.
        shipped: folders of what does.
    """
    if checkpoint.parent in shipped:
        return Path(runs) / checkpoint.name
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint


def without_places(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of an export: without hashes of files, and without paths of its run.

    The data's cache is left out too, so that an evaluation makes the drives where it is told to.
    """
    config = dict(manifest.get("config") or {})
    for key in ("run", "paths", "logger"):
        config.pop(key, None)
    model = {k: v for k, v in (config.get("model") or {}).items() if k != "text_cache"}
    data = dict(config.get("data") or {})
    for values in (data, source := dict(data.get("source") or {})):
        values.pop("cache", None)
    if source:
        data["source"] = source
    if data:
        config["data"] = data
    if model:
        config["model"] = model
    kept = {k: v for k, v in manifest.items() if k not in ("files", "sizes")}
    run = dict(manifest.get("run") or {})
    if isinstance(command := run.get("command"), str):
        words = [word for word in command.split() if not word.startswith(("run=", "paths."))]
        kept["run"] = {**run, "command": " ".join(words)}
    return {**kept, "config": config}


def write_export(
    out: Path,
    weights: Mapping[str, torch.Tensor],
    manifest: dict[str, Any],
    facts: Mapping[str, Any],
    whole: Collection[str] = (),
) -> None:
    """Write weights in half precision, and the manifest without places, with `facts`.

    Args:
        whole: names of weights that keep their precision.
    """
    halved = {
        name: value.to(torch.float16) if value.is_floating_point() and name not in whole else value
        for name, value in weights.items()
    }
    write_checkpoint(out, halved, {**without_places(manifest), **facts})
