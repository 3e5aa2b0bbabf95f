"""Listening: of the bits of a frame that actions can tell, the share that a model uses.

    used = bits of a frame without actions - bits with the true ones
    listening = used / attainable

A model without actions is the better of itself with dropped actions and of its mixture over
the newest action (`mixture`): a model that was trained without action dropout never learned the
first, and the second knows only typical actions. The best model has 100 %, one that ignores actions
0 %. Both parts take actions at one resolution, that of the typical ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from drives.tokens.store import TokenDrive, TokenStore
from training.disk.judging import judged
from training.disk.records import read_json
from training.errors import BadInput
from training.loading.spread import spread
from worldmodel.conditioning.text_encoders import Texts
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.attainable.config import ProbeConfig
from worldmodel.evaluation.attainable.mixture import SAMPLE, Centres, centres_of, mixture_nats
from worldmodel.evaluation.attainable.windows import statistics
from worldmodel.evaluation.intervals import Estimate, bootstrap
from worldmodel.evaluation.scores import score_windows
from worldmodel.windows import TokenClip

COMMAND = "python -m worldmodel.evaluation.attainable"
RESAMPLES = 1000
Bits = Float[np.ndarray, " window"]


@dataclass(frozen=True)
class Hearable:
    """What the actions of a store can tell of the next frame, as its probes say.

    Attributes:
        bits: of a time step, with their interval.
        by_drive: mean bits and windows of each judged drive.
        probe: of the probes; a model is asked without actions in the same way.
    """

    bits: Estimate
    by_drive: Mapping[str, tuple[float, int]]
    probe: ProbeConfig

    @property
    def is_something(self) -> bool:
        low = self.bits.value if self.bits.low is None else self.bits.low
        return low is not None and low > 0


def open_attainable(file: Path, store: TokenStore) -> Hearable:
    """What `attainable.json` says of frames one time step ahead.

    Raises:
        BadInput: it is none, is of another store, or says nothing of one time step.
    """
    values = read_json(file)
    told = {} if not isinstance(values, dict) else values
    where = f"attainable={file}"
    if "answers" not in told or "probe" not in told:
        raise BadInput(f"{where}: is no attainable.json; `{COMMAND}` writes one")
    if told.get("store") != store.hash:
        raise BadInput(
            f"{where}: was measured on tokens {str(told.get('store'))[:12]}, and {store.root} "
            f"holds {store.hash[:12]}; run `{COMMAND}` on these"
        )
    for answer in told["answers"]:
        if isinstance(answer, dict) and (answer.get("horizon"), answer.get("lag")) == (1, 0):
            parts = {name: answer.get(name) for name in ("bits_per_frame", "by_drive")}
            found = judged(_Used, parts, f"{where}: answers")
            return Hearable(
                found.bits_per_frame,
                found.by_drive,
                judged(ProbeConfig, told["probe"], f"{where}: probe"),
            )
    raise BadInput(f"{where}: says nothing of horizon 1; run `{COMMAND}` with 1 in probe.horizons")


@dataclass(frozen=True)
class _Used:
    bits_per_frame: Estimate
    by_drive: dict[str, tuple[float, int]]


def used_bits(
    network: Dynamics,
    clips: Sequence[TokenClip],
    train: Sequence[TokenDrive],
    probe: ProbeConfig,
    device: str,
    texts: Texts | None = None,
) -> tuple[Bits, str]:
    """Bits of the last frame of each window that the true action spares the model.

    Args:
        train: drives whose actions are the typical ones.

    Returns:
        The bits, and what stands for no actions: "dropped" or "mixture".
    """
    cells = clips[0].tokens[0, 0].numel()
    true, dropped = (
        score_windows(network, clips, device, texts, title, drop).nats[:, -1] * cells
        for title, drop in (("true actions", False), ("no actions", True))
    )
    mixture = mixture_nats(network, clips, typical(train, probe), device, texts)
    without = {"dropped": dropped, "mixture": mixture}
    best = min(without, key=lambda name: without[name].mean().item())
    return (without[best] - true).numpy() / math.log(2), best


def typical(train: Sequence[TokenDrive], probe: ProbeConfig) -> Centres:
    """Typical action rows of the drives, in the units of the columns."""
    mean, scale = statistics(train)
    pairs = [np.stack([d.actions[:-1], d.actions[1:]], 1) for d in train if len(d.actions) > 1]
    if not pairs:
        raise BadInput("the train drives hold no two frames in a row")
    rows = (np.concatenate(pairs) - mean) / scale
    rows = rows[spread(len(rows), SAMPLE)]
    found = centres_of(rows[:, 0], rows[:, 1], probe.centres, seed=0)
    own = found.rows.double() * torch.from_numpy(scale) + torch.from_numpy(mean)
    return replace(found, rows=own.float(), scale=torch.from_numpy(scale).float())


def listening(used: Bits, drives: Sequence[str], hearable: Hearable) -> Estimate:
    """Used bits by attainable ones, with an interval over the drives of both.

    Args:
        drives: the drive of every window.
    """
    ids = np.asarray(drives, dtype=object)
    judged_drives = list(dict.fromkeys(drives))
    ours = [(used[ids == drive].sum(), float((ids == drive).sum())) for drive in judged_drives]
    theirs = [(bits * num, float(num)) for bits, num in hearable.by_drive.values()]
    both = np.array([(*a, 0, 0) for a in ours] + [(0, 0, *b) for b in theirs], np.float64)

    def share(entries: np.ndarray) -> float:
        spent, windows, told, asked = both[entries].sum(0)
        heard = told / asked if asked else 0.0
        return float(spent / windows / heard) if windows and heard > 0 else math.nan

    found = bootstrap(share, [*judged_drives, *hearable.by_drive], RESAMPLES)
    return Estimate(found.value, found.low, found.high, len(used), len(judged_drives))
