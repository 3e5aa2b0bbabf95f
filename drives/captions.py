"""Captions: texts about ranges of frames, in `drive.json` and in the token store."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from training.errors import BadInput


@dataclass(frozen=True)
class Caption:
    """A sentence about the frames (in a token store: the token steps) start <= i < stop."""

    text: str
    start: int
    stop: int


def read_captions(entries: Any, num_frames: int, where: str) -> tuple[Caption, ...]:
    """Captions from JSON: `{"text": ..., "start": 0, "stop": 40}`; no range means all.

    Raises:
        BadInput: an entry without text, or a range outside of the drive.
    """
    if not isinstance(entries, list):
        raise BadInput(f'{where}: captions is {entries!r}; give a list of {{"text": ...}}')
    return tuple(_read(entry, num_frames, where) for entry in entries)


def cut_captions(captions: Sequence[Caption], start: int, stop: int) -> tuple[Caption, ...]:
    """The captions of frames start <= i < stop, counted from `start`."""
    moved = (
        Caption(c.text, max(c.start, start) - start, min(c.stop, stop) - start) for c in captions
    )
    return tuple(caption for caption in moved if caption.start < caption.stop)


def pick_captions(
    captions: Sequence[Caption], picks: Int[np.ndarray, " picked"]
) -> tuple[Caption, ...]:
    """The captions of the frames `picks` (rising), counted by their place among these."""
    ends = ((c.text, *np.searchsorted(picks, [c.start, c.stop]).tolist()) for c in captions)
    return tuple(Caption(text, start, stop) for text, start, stop in ends if start < stop)


def _read(entry: Any, num_frames: int, where: str) -> Caption:
    values = {"start": 0, "stop": num_frames, **entry} if isinstance(entry, dict) else {}
    if sorted(values) != ["start", "stop", "text"]:
        raise BadInput(f"{where}: caption {entry!r}; give text and, if you like, start and stop")
    text, start, stop = values["text"], values["start"], values["stop"]
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{where}: caption {entry!r} says nothing; give it a text, or leave it out")
    if type(start) is not int or type(stop) is not int or not 0 <= start < stop <= num_frames:
        raise BadInput(
            f"{where}: caption {text!r} is of frames {start} to {stop}; give whole numbers with "
            f"0 <= start < stop <= {num_frames}"
        )
    return Caption(text.strip(), start, stop)


def of_steps(captions: Iterable[Caption], num_frames: int) -> list[Caption]:
    """Captions of token steps that stand for `num_frames` frames each.

    A step has the captions of its first frame, so a caption shorter than a step may vanish.
    """
    steps = [Caption(c.text, -(-c.start // num_frames), -(-c.stop // num_frames)) for c in captions]
    return [c for c in steps if c.start < c.stop]


def captions_at(captions: Sequence[Caption], start: int, stop: int) -> tuple[str, ...]:
    """The caption of every frame start .. stop - 1: "" for none, several joined by a space."""
    frames = range(start, stop)
    return tuple(" ".join(c.text for c in captions if c.start <= i < c.stop) for i in frames)
