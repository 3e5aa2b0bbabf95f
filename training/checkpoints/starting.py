"""A new run from the weights of another: `init_from`. Optimizer, steps and averages are new."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from training.checkpoints.fitting import first_unlike, shapes
from training.checkpoints.resume import flat
from training.command_line import typed
from training.errors import BadInput

SHOWN = 6
FITTED = ("action_mean", "action_std", "action_min", "action_max")  # to the data of each run


def take_weights(
    network: nn.Module, other: nn.Module, where: str, anew: Sequence[str] = ()
) -> None:
    """Copy the weights of `other` into `network`.

    Args:
        where: the checkpoint, for messages.
        anew: beginnings of names whose weights stay as they were initialised.

    Raises:
        BadInput: the two networks differ in shape; the message has the settings to give.
    """
    ours, theirs = _named(network, anew), _named(other, anew)
    if (unlike := first_unlike(shapes(theirs), shapes(ours))) is not None:
        name, *both = unlike
        there, here = ("absent" if shape is None else shape for shape in both)
        raise BadInput(
            f"init_from={where}: {name} is {there} there and {here} here; give this run the "
            f"network of that checkpoint: {_settings(network, other)}"
        )
    network.load_state_dict(theirs, strict=False)


def with_origin(facts: dict[str, Any], origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """Facts of a run whose weights began elsewhere: what those saw in training, it has seen too.

    Args:
        origin: provenance of the weights; None: they began here.
    """
    if origin is None:
        return facts
    seen = {*facts.get("train_footage", ()), *(origin.get("train_footage") or ())}
    return facts | {"init_from": dict(origin), "train_footage": sorted(seen)}


def _named(network: nn.Module, anew: Sequence[str]) -> dict[str, Tensor]:
    return {k: v for k, v in network.state_dict().items() if not k.startswith(tuple(anew))}


def _settings(network: nn.Module, other: nn.Module) -> str:
    """Settings of this run that would make its network the other one."""
    if type(network.config) is not type(other.config):
        return f"another kind, {type(other.config).__name__}; choose its recipe"
    ours, theirs = _values(network), _values(other)
    differ = [
        typed(f"model.network.{name}", value)
        for name, value in theirs.items()
        if ours.get(name) != value and name.rpartition(".")[2] not in FITTED
    ]
    more = f" and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
    return " ".join(differ[:SHOWN]) + more


def _values(network: nn.Module) -> dict[str, Any]:
    """The settings of a network; lists, as tuples are in a manifest."""
    values = flat(asdict(network.config))  # type: ignore[call-overload]
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
