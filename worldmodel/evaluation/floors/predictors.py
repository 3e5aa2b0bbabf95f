"""Trivial predictors of the next token, which a model has to beat.

All are fitted on the train drives and scored on the model's own windows, in nats per real token.
One pass reads the train drives in pieces and counts only what the windows ask for, so memory does
not grow with the store.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Integer

from drives.tokens.store import TokenDrive

PIECE = 2**18  # tokens read at once
DENSE = 2**20  # keys up to here are counted in a plain array
MOST_TUNED = 2**18  # tokens that choose the strength of a prior
Frames = Integer[np.ndarray, "frame space"]
Pair = tuple[np.ndarray, np.ndarray]  # frames, and those after them
Scores = Float[np.ndarray, "window step"]


def floors(
    train: Sequence[TokenDrive],
    windows: Integer[np.ndarray, "window time *grid"],
    vocab_size: int,
    from_nothing: bool = False,
) -> dict[str, Scores]:
    """Cross entropy (nats per token) of steps 1.. of `windows`, of four predictors.

    Args:
        from_nothing: score step 0 too. Nothing lies before it, so the last two predictors below
            are the unigram there.


    unigram: one distribution over all tokens, add-one-half smoothed.
    position: one distribution per cell of the grid, backed off to the unigram.
    copy_last_frame: the same cell of the frame before with the observed probability of a
        repeat, else the unigram.
    previous_token: p(token | the same cell of the frame before), Dirichlet-smoothed towards
        the unigram (MacKay and Peto 1995) with the strength that suits the train drives.
    """
    flat = windows.reshape(*windows.shape[:2], -1).astype(np.int64)
    shape = (flat.shape[0], flat.shape[1] - 1)
    held = (flat[:, :-1].reshape(-1, flat.shape[-1]), flat[:, 1:].reshape(-1, flat.shape[-1]))
    usable = [drive for drive in train if not drive.damage]
    total = sum(max(0, len(drive.tokens) - 1) for drive in usable)
    cut = max(min(1, total), total * 9 // 10, total - MOST_TUNED // held[0].shape[1])
    tuned = list(_pairs(usable, cut))
    opening = flat[:, 0]
    counts = _Counts(vocab_size, held[0].shape[1], [held, (opening, opening), *tuned])
    for pair in _pairs(usable, 0, cut):
        counts.add(*pair)
    strengths = {name: counts.best_strength(name, tuned) for name in ("position", "previous_token")}
    for pair in tuned:
        counts.add(*pair)
    scores = {"unigram": -np.log(counts.unigram()[held[1]])}
    for name, strength in strengths.items():
        scores[name] = counts.nats(name, *held, strength)
    scores["copy_last_frame"] = counts.copied(*held)
    found = {name: nats.mean(-1).reshape(shape) for name, nats in scores.items()}
    if from_nothing:
        first = {name: -np.log(counts.unigram()[opening]).mean(-1) for name in found}
        position = counts.nats("position", opening, opening, strengths["position"])
        first["position"] = position.mean(-1)
        found = {name: np.column_stack([first[name], nats]) for name, nats in found.items()}
    return found


class _Counts:
    """Counts in the train drives of what is asked for.

    Args:
        asked: pairs of frames to score.
    """

    def __init__(self, vocab: int, space: int, asked: Sequence[Pair]) -> None:
        self.vocab, self.cells = vocab, np.arange(space)
        self.frames = self.repeats = 0
        self.after, self.before = np.zeros(vocab, np.int64), np.zeros(vocab, np.int64)
        self.seen = {}
        for name, size in (("position", space * vocab), ("previous_token", vocab**2)):
            keys = None
            if size > DENSE:
                keys = np.unique(np.concatenate([self.key(name, *p).ravel() for p in asked]))
            self.seen[name] = _Seen(size, keys)

    def key(self, name: str, before: Frames, after: Frames) -> Frames:
        return (self.cells if name == "position" else before) * self.vocab + after

    def add(self, before: Frames, after: Frames) -> None:
        self.frames += len(before)
        self.repeats += int((before == after).sum())
        self.before += np.bincount(before.ravel(), minlength=self.vocab)
        self.after += np.bincount(after.ravel(), minlength=self.vocab)
        for name, seen in self.seen.items():
            seen.add(self.key(name, before, after).ravel())

    def unigram(self) -> Float[np.ndarray, " vocab"]:
        smooth = self.after + 0.5
        return smooth / smooth.sum()

    def nats(self, name: str, before: Frames, after: Frames, prior: float) -> np.ndarray:
        """Nats of every token, by counts of its cell or of the token before it."""
        seen = self.seen[name].of(self.key(name, before, after))
        total = self.frames if name == "position" else self.before[before]
        return -np.log((seen + prior * self.unigram()[after]) / (total + prior))

    def copied(self, before: Frames, after: Frames) -> np.ndarray:
        """Nats of every token, by a repeat of the token before it."""
        # Half a token more of each, because a street that never moved may move now.
        repeat = (self.repeats + 0.5) / (self.frames * len(self.cells) + 1)
        fresh = (1 - repeat) * self.unigram()[after]
        return -np.log(fresh + repeat * (before == after))

    def best_strength(self, name: str, pairs: Sequence[Pair]) -> float:
        """The prior strength that predicts these pairs best."""
        if not pairs:
            return 1.0
        choices = [10.0**k for k in range(-2, 5)]
        costs = [sum(self.nats(name, *p, prior).sum() for p in pairs) for prior in choices]
        return choices[int(np.argmin(costs))]


class _Seen:
    """Counts of keys below `size`: of all, or of `keys` alone where they are given."""

    def __init__(self, size: int, keys: Integer[np.ndarray, " key"] | None) -> None:
        self.keys = keys
        self.counts = np.zeros(size if keys is None else len(keys), np.int64)

    def add(self, found: Integer[np.ndarray, " token"]) -> None:
        if self.keys is not None:
            found = np.sort(found)  # so that a search stays near in memory
            place = np.searchsorted(self.keys, found)
            place = np.minimum(place, len(self.keys) - 1)
            found = place[self.keys[place] == found]
        self.counts += np.bincount(found, minlength=len(self.counts))

    def of(self, asked: Integer[np.ndarray, "*n"]) -> Integer[np.ndarray, "*n"]:
        place = asked if self.keys is None else np.searchsorted(self.keys, asked)
        return self.counts[place]


def _pairs(drives: Sequence[TokenDrive], start: int, stop: int | None = None) -> Iterator[Pair]:
    """Frames and their successors in pieces; `start` and `stop` count pairs over all drives."""
    passed = 0
    for drive in drives:
        num = len(drive.tokens) - 1
        first, last = max(0, start - passed), num if stop is None else min(num, stop - passed)
        step = max(1, PIECE // max(1, drive.tokens[0].size)) if num > 0 else 1
        for begin in range(first, last, step):
            end = min(begin + step, last)
            piece = drive.tokens[begin : end + 1].reshape(end + 1 - begin, -1).astype(np.int64)
            yield piece[:-1], piece[1:]
        passed += max(0, num)
