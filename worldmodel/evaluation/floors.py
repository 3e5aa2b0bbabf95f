"""Trivial predictors of the next token: any score below theirs is worth something.

All are fitted on the train drives and scored on others, in nats per real token.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from drives.tokens.store import TokenDrive

Pairs = tuple[Int[np.ndarray, "_ space"], Int[np.ndarray, "_ space"]]
Predictor = Callable[[Pairs, Pairs, Float[np.ndarray, " vocab"], float], float]


def floors(
    train: Sequence[TokenDrive], test: Sequence[TokenDrive], vocab_size: int
) -> dict[str, float]:
    """Cross entropy (nats per token) on `test` of four predictors fitted on `train`.

    unigram: one distribution over all tokens, add-one-half smoothed.
    position: one distribution per cell of the grid, backed off to the unigram.
    copy_last_frame: the same cell of the frame before with the observed probability of a
        repeat, else the unigram.
    previous_token: p(token | the same cell of the frame before), Dirichlet-smoothed towards
        the unigram (MacKay and Peto 1995) with the strength that suits the train drives.
    """
    before, after = _pairs(train)
    held_before, held_after = _pairs(test)
    unigram = _normalise(np.bincount(after.ravel(), minlength=vocab_size) + 0.5)
    scores = {"unigram": float(-np.log(unigram[held_after]).mean())}

    train_pairs, held_pairs = (before, after), (held_before, held_after)
    for name, nats in (("position", _position_nll), ("previous_token", _previous_nll)):
        strength = _best_strength(nats, train_pairs, vocab_size)
        scores[name] = nats(train_pairs, held_pairs, unigram, strength)

    repeat = float((before == after).mean())
    fresh = (1 - repeat) * unigram[held_after]
    scores["copy_last_frame"] = float(-np.log(fresh + repeat * (held_before == held_after)).mean())
    return scores


def _pairs(drives: Sequence[TokenDrive]) -> Pairs:
    """Tokens of every frame but the last, and those of the frame after it."""
    flat = [drive.tokens.reshape(len(drive.tokens), -1).astype(np.int64) for drive in drives]
    return np.concatenate([t[:-1] for t in flat]), np.concatenate([t[1:] for t in flat])


def _position_nll(
    train: Pairs, held: Pairs, unigram: Float[np.ndarray, " vocab"], prior: float
) -> float:
    space = train[1].shape[1]
    counts = np.zeros((space, len(unigram)))
    np.add.at(counts, (np.broadcast_to(np.arange(space), train[1].shape), train[1]), 1)
    smooth = (counts + prior * unigram) / (counts.sum(1, keepdims=True) + prior)
    return float(-np.log(smooth[np.arange(space), held[1]]).mean())


def _previous_nll(
    train: Pairs, held: Pairs, unigram: Float[np.ndarray, " vocab"], prior: float
) -> float:
    vocab = len(unigram)
    pairs, counts = np.unique(train[0].ravel() * vocab + train[1].ravel(), return_counts=True)
    total = np.bincount(train[0].ravel(), minlength=vocab)
    asked = held[0].ravel() * vocab + held[1].ravel()
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    seen = np.where(pairs[place] == asked, counts[place], 0)
    share = (seen + prior * unigram[held[1].ravel()]) / (total[held[0].ravel()] + prior)
    return float(-np.log(share).mean())


def _best_strength(nats: Predictor, train: Pairs, vocab_size: int) -> float:
    """Prior strength that predicts the last tenth of the train frames best from the rest."""
    cut = max(1, len(train[1]) * 9 // 10)
    fit, held = (train[0][:cut], train[1][:cut]), (train[0][cut:], train[1][cut:])
    if not len(held[1]):
        return 1.0
    unigram = _normalise(np.bincount(fit[1].ravel(), minlength=vocab_size) + 0.5)
    return min((10.0**k for k in range(-2, 5)), key=lambda prior: nats(fit, held, unigram, prior))


def _normalise(counts: Float[np.ndarray, " vocab"]) -> Float[np.ndarray, " vocab"]:
    return counts / counts.sum()
