"""Copies of networks for the C function, kept as long as the network and while its weights stay."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from worldmodel.decoding.native.step import why_not_native
from worldmodel.decoding.weights import for_decoding
from worldmodel.dynamics.gpt.model import GPT


class Kept(NamedTuple):
    """What `for_decoding` made, and of which weights."""

    weights: list[tuple[int, ...]]
    model: GPT


_kept: WeakKeyDictionary[GPT, dict[str, Kept]] = WeakKeyDictionary()


def kept_for_decoding(model: GPT, dtype: torch.dtype | str | None) -> GPT:
    """As `for_decoding`, and the same object while no weight of the network changes.

    Opening a decoder then reads the weights once, and copies none.
    """
    of_model, weights = _kept.setdefault(model, {}), [_seen(part) for part in _parts(model)]
    found = of_model.get(str(dtype))
    if found is not None and found.weights == weights:
        return found.model
    of_model.pop(str(dtype), None)
    lowered = for_decoding(model, dtype)
    if why_not_native(lowered) is None:
        of_model[str(dtype)] = Kept(weights, lowered)
    return lowered


def _parts(model: GPT) -> list[Tensor]:
    return [part.detach() for part in (*model.parameters(), *model.buffers())]


def _seen(part: Tensor) -> tuple[int, ...]:
    """Place, and the sum of the bits: an edit through `.data` leaves no other trace."""
    whole = part.contiguous().flatten().view(torch.uint8)
    if whole.storage_offset() % 8:
        whole = whole.clone()
    even = len(whole) - len(whole) % 8
    total = whole[:even].view(torch.int64).sum() + whole[even:].sum()
    return part.data_ptr(), len(whole), int(total)
