"""Exact likelihoods and entropies of the next frame in the known-entropy world.

Equations (1) to (6) are in `worldmodel.known_entropy.world`, (7) and (8) in `occupancy`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Integer


@dataclass(frozen=True, eq=False)
class TurningChannel:
    """Rolls the columns of a frame by a random shift, then resamples some tokens: (1) and (2).

    Attributes:
        width: W, number of columns of a frame.
        vocab_size: V, number of different tokens.
        match, mismatch: likelihoods m and n of a token, see (2).
        shifts: different shifts in columns to the right, modulo W, ascending.
        shift_probs: probability of each shift.
    """

    width: int
    vocab_size: int
    match: float
    mismatch: float
    shifts: tuple[int, ...]
    shift_probs: Float[np.ndarray, " shift"]

    def entropy(self) -> float:
        """Nats per token given the previous frame and the shift: (3)."""
        others = (self.vocab_size - 1) * self.mismatch
        return -self.match * math.log(self.match) - others * math.log(self.mismatch)

    def product_entropy(self) -> float:
        """Nats per token of the best product of one distribution per cell, without the shift: (6).

        A cell has one source per shift: a token of the previous frame. Sources are independent
        and uniform. A token that is the source for the set B of shifts has q = n + (m - n) P(B).
        Any other token has q = n. The mean runs over the set partitions of the shifts; each
        stands for V! / (V - blocks)! choices of tokens.
        """
        vocab, num = self.vocab_size, len(self.shifts)
        total = 0.0
        for blocks in _partitions(num):
            probs = np.bincount(blocks, weights=self.shift_probs)
            seen = self.mismatch + (self.match - self.mismatch) * probs
            unseen = (vocab - len(probs)) * self.mismatch
            nats = -(seen @ np.log(seen)) - unseen * math.log(self.mismatch)
            total += math.perm(vocab, len(probs)) / vocab**num * nats
        return total

    def nll(
        self,
        past: Integer[np.ndarray, "*frame height width"],
        target: Integer[np.ndarray, "*frame height width"],
        shift: Integer[np.ndarray, "*frame"] | None = None,
    ) -> Float[np.ndarray, "*frame height width"]:
        """Nats of every token given the previous frame and a shift (its index, true or false).

        Without shifts, each token is also given the earlier tokens in raster order:
        -log sum_a p(a | x'_{<i}) f(x'_i | roll_a(x)_i).
        """
        nats = np.where(self.matches(past, target), -math.log(self.match), -math.log(self.mismatch))
        if shift is not None:
            return np.take_along_axis(nats, shift[..., None, None, None], axis=-3).squeeze(-3)
        read = np.cumsum(-nats.reshape(*nats.shape[:-2], -1), axis=-1)
        before = np.concatenate([np.zeros_like(read[..., :1]), read[..., :-1]], axis=-1)
        with np.errstate(divide="ignore"):  # a yaw of probability 0 has log prior -inf
            prior = np.log(self.shift_probs)[:, None]
        log_before = np.logaddexp.reduce(prior + before, axis=-2)
        return (log_before - np.logaddexp.reduce(prior + read, axis=-2)).reshape(target.shape)

    def product_nll(
        self,
        past: Integer[np.ndarray, "*frame height width"],
        target: Integer[np.ndarray, "*frame height width"],
    ) -> Float[np.ndarray, "*frame height width"]:
        """Nats of every token under the best product over cells, without the shift: (6)."""
        likelihood = np.where(self.matches(past, target), self.match, self.mismatch)
        return -np.log(np.tensordot(likelihood, self.shift_probs, axes=(-3, 0)))

    def matches(
        self,
        past: Integer[np.ndarray, "*frame height width"],
        target: Integer[np.ndarray, "*frame height width"],
    ) -> Bool[np.ndarray, "*frame shift height width"]:
        """Which tokens of a frame match the past one, rolled by each shift."""
        turned = np.stack([np.roll(past, shift, axis=-1) for shift in self.shifts], axis=-3)
        return turned == target[..., None, :, :]

    def prefix_entropy(self, rows: int, cells: int) -> float:
        """Nats of the first `rows` rows and `cells` more tokens, given the previous frame.

        By (1) and (2), shift b has the likelihood m^k_b n^(N - k_b). Here k_b counts the tokens
        that match the past rolled by b, and N counts all. So the counts k are sufficient. Given
        the shift, rows are independent: the distribution of the counts is a convolution over
        rows.
        """
        num_tokens = rows * self.width + cells
        total = 0.0
        for true, prob in enumerate(self.shift_probs):
            counts = self.counts(true, rows, cells)
            log_joint = np.full(counts.shape, -np.inf)
            for axis, other in enumerate(self.shift_probs):
                if other:
                    k: np.ndarray = np.indices(counts.shape, sparse=True)[axis]
                    log_m, log_n = math.log(self.match), math.log(self.mismatch)
                    term = math.log(other) + k * log_m + (num_tokens - k) * log_n
                    log_joint = np.logaddexp(log_joint, term)
            total -= prob * float((counts * log_joint).sum())
        return total

    def counts(self, true: int, rows: int, cells: int) -> Float[np.ndarray, "*matches"]:
        """P(number of matches of each shift) of the first `rows` rows and `cells` more tokens.

        Args:
            true: index of the shift by which the frame was rolled.
        """
        counts = np.ones((1,) * len(self.shifts))
        for length in [self.width] * rows + [cells]:
            counts = _convolve(counts, self._row_counts[true][length])
        return counts

    @cached_property
    def _row_counts(self) -> list[list[np.ndarray]]:
        """P(number of matches of each shift), by true shift and by number of tokens 0..W.

        Only equality between the cells of a past row matters, not their symbols. So the mean
        runs over the set partitions of a row; each stands for V! / (V - blocks)! rows.
        """
        num, vocab = len(self.shifts), self.vocab_size
        counts = [[np.zeros((n + 1,) * num) for n in range(self.width + 1)] for _ in range(num)]
        for row in _partitions(self.width):
            weight = math.perm(vocab, max(row) + 1) / vocab**self.width
            if not weight:
                continue
            for true in range(num):
                seen = np.ones((1,) * num)
                counts[true][0] += weight * seen
                for column in range(self.width):
                    sources = [row[(column - shift) % self.width] for shift in self.shifts]
                    seen = _convolve(seen, self._cell_counts(sources, true))
                    counts[true][column + 1] += weight * seen
        return counts

    def _cell_counts(self, sources: list[int], true: int) -> np.ndarray:
        """P(match with the source of each shift) for one token; one axis of size 2 per shift."""
        cell = np.zeros((2,) * len(sources))
        for label in set(sources):
            matches = tuple(int(source == label) for source in sources)
            cell[matches] += self.match if label == sources[true] else self.mismatch
        unseen = self.vocab_size - len(set(sources))
        cell[(0,) * len(sources)] += unseen * self.mismatch
        return cell


def _partitions(size: int) -> Iterator[tuple[int, ...]]:
    """All set partitions of `size` cells; blocks are numbered in order of appearance."""
    if size == 0:
        yield ()
        return
    for head in _partitions(size - 1):
        for label in range(max(head, default=-1) + 2):
            yield (*head, label)


def _convolve(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Distribution of the sum of two independent vectors of counts."""
    shape = tuple(a + b - 1 for a, b in zip(left.shape, right.shape, strict=True))
    result = np.zeros(shape)
    for offset in zip(*np.nonzero(right), strict=True):
        window = tuple(slice(o, o + n) for o, n in zip(offset, left.shape, strict=True))
        result[window] += left * right[offset]
    return result
