"""A new run from the weights of another: `init_from`. Optimizer, steps and averages are new."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

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
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = _shape(ours, name), _shape(theirs, name)
        if here != there:
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


def _shape(weights: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(weights[name].shape)) if name in weights else "absent"


def _settings(network: nn.Module, other: nn.Module) -> str:
    """Settings of this run that would make its network the other one."""
    ours, theirs = (dict(_flat(asdict(one.config))) for one in (network, other))  # type: ignore[call-overload]
    differ = [
        f"model.network.{name}={_typed(value)}"
        for name, value in theirs.items()
        if ours.get(name) != value and name.rpartition(".")[2] not in FITTED
    ]
    if type(network.config) is not type(other.config):
        return f"another kind, {type(other.config).__name__}; choose its recipe"
    more = f" and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
    return " ".join(differ[:SHOWN]) + more


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def _typed(value: Any) -> str:
    """A value as it is typed on a command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")
