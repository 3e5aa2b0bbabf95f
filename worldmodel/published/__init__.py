"""Published world models open as they are: one adapter per format; nothing else knows those.

An adapter is a small dataclass of options with `open(files) -> Opened`, and a line in `ADAPTERS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from training.checkpoints import write_checkpoint
from training.errors import BadInput
from training.hashing import file_sha256
from worldmodel.load import WorldModel, manifest_of
from worldmodel.published.commavq_gpt import CommaVQGPT
from worldmodel.published.cosmos_ar import CosmosAR
from worldmodel.published.genie import Genie
from worldmodel.published.opened import Opened
from worldmodel.published.vam_mupgpt2 import VaViM


class Adapter(Protocol):
    def open(self, files: Sequence[Path]) -> Opened: ...


ADAPTERS: dict[str, type[Any]] = {
    "commavq_gpt": CommaVQGPT,
    "cosmos_ar": CosmosAR,
    "vam_mupgpt2": VaViM,
    "genie": Genie,
}


def adapter(name: str, options: Mapping[str, Any]) -> Adapter:
    """The adapter called `name`; options that are None keep their defaults.

    Raises:
        BadInput: no such adapter, or an option that it does not have.
    """
    if name not in ADAPTERS:
        raise BadInput(f"model={name}: no such published one; there are: {', '.join(ADAPTERS)}")
    given = {key: value for key, value in options.items() if value is not None}
    known = [field.name for field in fields(ADAPTERS[name])]
    for key, value in given.items():
        if key not in known:
            raise BadInput(f"{key}={value}: {name} has no such option; it has: {', '.join(known)}")
    found: Adapter = ADAPTERS[name](**given)
    return found


def open_published(name: str, files: Sequence[Path], **options: Any) -> WorldModel:
    """The world model in published files, in eval mode.

    Raises:
        BadInput: as `adapter`, and where the files are not what the adapter reads.
    """
    opened = adapter(name, options).open(files)
    network = opened.config.build(opened.spec, len(opened.action_names))
    network.load_state_dict(opened.weights)
    network.eval().requires_grad_(False)
    return WorldModel(
        network, opened.spec, opened.action_names, files[0], _manifest(name, files, opened)
    )


def convert(name: str, files: Sequence[Path], out: Path, **options: Any) -> list[str]:
    """Write published files as a checkpoint of ours; returns the names of what was left out.

    Raises:
        BadInput: as `open_published`, or `out` exists.
    """
    if out.exists():
        raise BadInput(f"out={out}: exists already; nothing is overwritten")
    opened = adapter(name, options).open(files)
    weights: dict[str, Tensor] = {f"network.{k}": v for k, v in opened.weights.items()}
    write_checkpoint(out, weights, _manifest(name, files, opened))
    return opened.left_out


def _manifest(name: str, files: Sequence[Path], opened: Opened) -> dict[str, Any]:
    source = {
        "name": name,
        "files": {file.name: file_sha256(file) for file in files},
        "left_out": opened.left_out,
    }
    return {**manifest_of(opened.config, opened.spec, opened.action_names), "published": source}
