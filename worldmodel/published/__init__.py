"""Published world models open as they are: one adapter per format (`training.foreign.adapters`)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from training.checkpoints.folder import write_checkpoint
from training.disk.places import refuse_existing
from training.foreign.adapters import choose, provenance
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.load import WorldModel, manifest_of
from worldmodel.published.commavq_gpt import CommaVQGPT
from worldmodel.published.cosmos_ar import CosmosAR
from worldmodel.published.genie import Genie
from worldmodel.published.opened import OpenedWorldModel
from worldmodel.published.vam_mupgpt2 import VaViM


class WorldModelAdapter(Protocol):
    def open(self, files: Sequence[Path]) -> OpenedWorldModel: ...


ADAPTERS: dict[str, Callable[..., WorldModelAdapter]] = {
    "commavq_gpt": CommaVQGPT,
    "cosmos_ar": CosmosAR,
    "vam_mupgpt2": VaViM,
    "genie": Genie,
}


def adapter(name: str, options: Mapping[str, Any]) -> WorldModelAdapter:
    """The adapter called `name`; see `training.foreign.adapters.choose`."""
    return choose(ADAPTERS, "model", name, options)


def open_published(name: str, files: Sequence[Path], **options: Any) -> WorldModel:
    """The world model in published files, in eval mode.

    Raises:
        BadInput: as `adapter`, and where the files are not what the adapter reads.
    """
    opened = adapter(name, options).open(files)
    network = build_dynamics(opened.config, opened.spec, len(opened.action_names))
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
    refuse_existing("out", out)
    opened = adapter(name, options).open(files)
    weights: dict[str, Tensor] = {f"network.{k}": v for k, v in opened.weights.items()}
    write_checkpoint(out, weights, _manifest(name, files, opened))
    return opened.left_out


def _manifest(name: str, files: Sequence[Path], opened: OpenedWorldModel) -> dict[str, Any]:
    found = manifest_of(opened.config, opened.spec, opened.action_names)
    return {**found, **provenance(name, files, opened.left_out)}
