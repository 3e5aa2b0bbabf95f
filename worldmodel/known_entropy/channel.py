"""From one frame of the known-entropy world to the next: exact likelihoods and entropies.

The equations (1) to (6) are those of `worldmodel.known_entropy.world`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Integer


@dataclass(frozen=True, eq=False)
class TurningChannel:
    """A frame turned by a random shift of its columns, then resampled in places: (1) and (2).

    Attributes:
        width: W, columns of a frame.
        vocab_size: V, the number of different tokens.
        match, mismatch: m and n of (2), the likelihoods of a token.
        shifts: the different turns, in columns to the right modulo W, ascending.
        shift_probs: their probabilities.
    """

    width: int
    vocab_size: int
    match: float
    mismatch: float
    shifts: tuple[int, ...]
    shift_probs: Float[np.ndarray, " shift"]

    def entropy(self) -> float:
        """Nats per token, frame before and shift seen: (3)."""
        others = (self.vocab_size - 1) * self.mismatch
        return -self.match * math.log(self.match) - others * math.log(self.mismatch)

    def product_entropy(self) -> float:
        """Nats per token of the best product of one distribution per cell, shift unseen: (6).

        The sources of a cell, one per shift, are independent uniform tokens of the frame before.
        A token that is the source of the shifts B has q = n + (m - n) P(B), any other has n; the
        average runs over the set partitions of the shifts, V! / (V - blocks)! tokens in each.
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
        """Nats of every token given the frame before and a shift, by index, true or not.

        Without shifts, given the tokens before it in raster order:
        -log sum_a p(a | x'_{<i}) f(x'_i | roll_a(x)_i).
        """
        nats = np.where(
            self._is_match(past, target), -math.log(self.match), -math.log(self.mismatch)
        )
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
        """Nats of every token by the best product over cells, shift unseen: (6)."""
        likelihood = np.where(self._is_match(past, target), self.match, self.mismatch)
        return -np.log(np.tensordot(likelihood, self.shift_probs, axes=(-3, 0)))

    def _is_match(
        self,
        past: Integer[np.ndarray, "*frame height width"],
        target: Integer[np.ndarray, "*frame height width"],
    ) -> Bool[np.ndarray, "*frame shift height width"]:
        turned = np.stack([np.roll(past, shift, axis=-1) for shift in self.shifts], axis=-3)
        return turned == target[..., None, :, :]

    def prefix_entropy(self, rows: int, cells: int) -> float:
        """Nats of the first `rows` rows and `cells` more tokens of a frame given the one before.

        By (1) and (2) the likelihood of shift b is m^k_b n^(N - k_b), with k_b the number of
        the N tokens that match the past turned by b: the counts say it all. Rows are
        independent given the shift, so the counts' distribution is a convolution of rows'.
        """
        num_tokens = rows * self.width + cells
        total = 0.0
        for true, prob in enumerate(self.shift_probs):
            counts = np.ones((1,) * len(self.shifts))
            for length in [self.width] * rows + [cells]:
                counts = _convolve(counts, self._row_counts[true][length])
            log_joint = np.full(counts.shape, -np.inf)
            for axis, other in enumerate(self.shift_probs):
                if other:
                    k = np.indices(counts.shape, sparse=True)[axis]
                    log_m, log_n = math.log(self.match), math.log(self.mismatch)
                    term = math.log(other) + k * log_m + (num_tokens - k) * log_n
                    log_joint = np.logaddexp(log_joint, term)
            total -= prob * float((counts * log_joint).sum())
        return total

    @cached_property
    def _row_counts(self) -> list[list[np.ndarray]]:
        """Of each true shift, then number of tokens 0..W: P(number of matches of each shift).

        Which symbols a past row holds is irrelevant, only which of its cells are equal: the
        average runs over the set partitions of a row, V! / (V - blocks)! rows in each.
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
        """P(match with each shift's source) of one token, as an array of 2 per shift."""
        cell = np.zeros((2,) * len(sources))
        for label in set(sources):
            matches = tuple(int(source == label) for source in sources)
            cell[matches] += self.match if label == sources[true] else self.mismatch
        unseen = self.vocab_size - len(set(sources))
        cell[(0,) * len(sources)] += unseen * self.mismatch
        return cell


def _partitions(size: int) -> Iterator[tuple[int, ...]]:
    """Every way in which `size` cells can be equal or not, labelled by first appearance."""
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
