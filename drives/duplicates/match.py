"""Matches: fits shift and crop of a guess, and finds the frames over which it holds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from drives.duplicates.likeness import LEAST_CHANGE, Edges, distance, own_change, readied
from drives.duplicates.prints import Print
from drives.duplicates.votes import BLOCK_S, FRAMES, Guess
from training.loading.spread import spread

PROBES = 12  # samples of a block that shift and crop are fitted on
SHIFTS = range(-4, 5)  # samples
CROPS = (0.0, 0.02, 0.04, 0.06, 0.08)  # of each edge
PROMISING = 2.0  # times the threshold: then the edges are fitted one by one
ROUNDS = 3


@dataclass(frozen=True)
class Duplicate:
    """Frames of two drives in different splits that show the same footage.

    Attributes:
        a, b: the drives, `a` in the earlier split (train, val, test).
        a_frames, b_frames: first and last frame that are alike; token steps for encoded drives.
        ratio: their mean distance over the change of `b` within half a second; 0 for equal files.
    """

    a: str
    b: str
    a_split: str
    b_split: str
    a_frames: tuple[int, int]
    b_frames: tuple[int, int]
    ratio: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.a} ({self.a_split}) frames {self.a_frames[0]}-{self.a_frames[1]} and "
            f"{self.b} ({self.b_split}) frames {self.b_frames[0]}-{self.b_frames[1]}"
        )


class Fit(NamedTuple):
    """Alignment of `b` over `a`.

    Attributes:
        distance: mean over the probes.
        by: samples of `a` that are added to the guessed shift.
        of_a: whether the edges are cut from `a`; else from `b`.
    """

    distance: float
    by: int = 0
    of_a: bool = True
    edges: Edges = Edges()


class Matcher:
    """Judges guesses about prints.

    Args:
        max_ratio: largest mean distance of a match, over the change within half a second.
        min_s: seconds that must match; a shorter drive must match as a whole.
    """

    def __init__(self, prints: Sequence[Print], max_ratio: float, min_s: float) -> None:
        self.prints, self.max_ratio, self.min_s = prints, max_ratio, min_s
        self._changes: dict[int, np.ndarray] = {}

    def first_matches(self, guesses: Iterable[Guess]) -> list[Duplicate]:
        """One match of each pair of drives, if any."""
        found: dict[tuple[int, int], Duplicate] = {}
        for guess in guesses:
            if (guess.a, guess.b) not in found and (match := self.judged(guess)):
                found[guess.a, guess.b] = match
        return [found[pair] for pair in sorted(found)]

    def judged(self, guess: Guess) -> Duplicate | None:
        """The match of a guess; None where the frames differ."""
        change, probes = self._change(guess.b), self._probes(guess)
        least = change[probes].mean() if len(probes) else 0.0
        if least < LEAST_CHANGE:
            return None
        fit = self._coarse(guess, probes)
        if fit.distance > PROMISING * self.max_ratio * least:
            return None
        if self.prints[guess.a].pictures.ndim > 2:
            fit = self._fine(guess, probes, fit)
        return self._extent(guess, fit)

    def _change(self, drive: int) -> Float[np.ndarray, " sample"]:
        if drive not in self._changes:
            one = self.prints[drive]
            self._changes[drive] = own_change(one.pictures, one.rate_hz)
        return self._changes[drive]

    def _times(self, guess: Guess, drive: int) -> Float[np.ndarray, " sample"]:
        one = self.prints[drive]
        return one.frames if guess.clock == FRAMES else one.seconds

    def _probes(self, guess: Guess) -> Int[np.ndarray, " probe"]:
        """Samples of `b` in the block under which a sample of `a` may lie."""
        times, place = self._times(guess, guess.b), self._under(guess, 0)
        inside = (times >= guess.block * BLOCK_S) & (times < (guess.block + 1) * BLOCK_S)
        block = np.flatnonzero(inside & self._is_there(guess, place))
        return block[spread(len(block), PROBES)]

    def _under(self, guess: Guess, by: int) -> Int[np.ndarray, " sample"]:
        """The sample of `a` under every sample of `b`; it may lie outside of `a`."""
        times = self._times(guess, guess.a)
        step = times[1] - times[0] if len(times) > 1 else 1.0
        shown = (self._times(guess, guess.b) + guess.shift_s) / step
        return np.floor(shown + 0.5).astype(int) + by

    def _is_there(self, guess: Guess, place: Int[np.ndarray, " n"]) -> np.ndarray:
        return (place >= 0) & (place < len(self.prints[guess.a].pictures))

    def _fitted(
        self, guess: Guess, probes: np.ndarray, of_a: bool, edges: Edges, shifts: Sequence[int]
    ) -> Fit:
        """The best shift for a crop."""
        a, b = self.prints[guess.a].pictures, self.prints[guess.b].pictures
        last, under = len(a) - 1, self._under(guess, 0)[probes]
        first, stop = max(0, under.min() + shifts[0]), min(last, under.max() + shifts[-1]) + 1
        ours = readied(a[first:stop], edges if of_a else None)
        theirs = readied(b[probes], None if of_a else edges)
        places = (np.clip(under + by, 0, last) - first for by in shifts)
        found = [float(distance(ours[place], theirs).mean()) for place in places]
        best = int(np.argmin(found))
        return Fit(found[best], shifts[best], of_a, edges)

    def _coarse(self, guess: Guess, probes: np.ndarray) -> Fit:
        """The best shift and the best equal crop of all edges, of either drive."""
        if self.prints[guess.a].pictures.ndim == 2:
            return self._fitted(guess, probes, True, Edges(), SHIFTS)
        tried = [
            self._fitted(guess, probes, of_a, Edges(crop, crop, crop, crop), SHIFTS)
            for of_a in (True, False)
            for crop in CROPS
        ]
        return min(tried, key=lambda fit: fit.distance)

    def _fine(self, guess: Guess, probes: np.ndarray, best: Fit) -> Fit:
        """Each edge by itself, in turns, and the shift with it."""
        for _ in range(ROUNDS):
            before = best.distance
            for edge in Edges._fields:
                shifts = range(best.by - 1, best.by + 2)
                tried = [
                    self._fitted(
                        guess, probes, best.of_a, best.edges._replace(**{edge: crop}), shifts
                    )
                    for crop in CROPS
                ]
                best = min([best, *tried], key=lambda fit: fit.distance)
            if best.distance > 0.95 * before:
                break
        return best

    def _extent(self, guess: Guess, fit: Fit) -> Duplicate | None:
        """The longest run of windows that match, over the whole of both drives."""
        a, b = self.prints[guess.a], self.prints[guess.b]
        under = self._under(guess, fit.by)
        pairs = np.flatnonzero(self._is_there(guess, under))
        length = max(2, round(self.min_s * b.rate_hz))
        if len(pairs) < length:
            if len(pairs) < min(len(a.pictures), len(b.pictures)) or len(pairs) < 2:
                return None
            length = len(pairs)
        ours = readied(a.pictures[under[pairs]], fit.edges if fit.of_a else None)
        theirs = readied(b.pictures[pairs], None if fit.of_a else fit.edges)
        apart, change = (
            np.convolve(values, np.ones(length), "valid")
            for values in (distance(ours, theirs), self._change(guess.b)[pairs])
        )
        alike = (apart <= self.max_ratio * change) & (change >= LEAST_CHANGE * length)
        if not alike.any():
            return None
        first, last = longest_run(alike)
        span = pairs[first], pairs[last + length - 1]
        return Duplicate(
            a.footage.drive,
            b.footage.drive,
            a.footage.split,
            b.footage.split,
            (int(under[span[0]] * a.every), int(under[span[1]] * a.every)),
            (int(span[0] * b.every), int(span[1] * b.every)),
            float(apart[first : last + 1].sum() / change[first : last + 1].sum()),
        )


def longest_run(flags: np.ndarray) -> tuple[int, int]:
    """First and last place of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(int)))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest]) - 1
