"""The card `commavq`: commaVQ's evaluation, in windows of 20 frames, and its compression rate."""

import math
from collections import Counter

from training.loading.spread import spread
from worldmodel.evaluation.cards.config import CommaVQCard
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.challenges.commavq import (
    check_context,
    commavq_windows,
    judge_windows,
)
from worldmodel.evaluation.floors.predictors import floors
from worldmodel.evaluation.intervals import Estimate, mean_over_drives
from worldmodel.evaluation.subject import Chosen, JudgedModel

MOST_FLOORED = 512  # windows of the floors
WHERE, MODEL = "cards.commavq", "world model"


def check(subject: JudgedModel, card: CommaVQCard) -> None:
    """BadInput where context or segments are shorter than a window."""
    check_context(subject.network, card.frames, WHERE)
    _windows(subject, card)


def measure(subject: JudgedModel, card: CommaVQCard) -> Result:
    """Nats, bits and rate with and without separators, as means over segments."""
    chosen = _windows(subject, card)
    result = Result(chosen.record(), chosen.drives, chosen.names)
    found = judge_windows(subject.network, chosen.loader(subject.batch_size), subject.device)
    raw = math.log2(found.vocab_size)
    each = Counter(chosen.drives)
    weights = [1 / each[drive] for drive in chosen.drives]
    bits = {"without": found.bits_without_separators, "with": found.bits_with_separators}
    nats = {"without": found.without_separators, "with": found.with_separators}
    for how in ("with", "without"):
        values, own = nats[how], bits[how]
        if values is None or own is None:
            continue
        for name, column in (("nats", values), ("bits_per_token", own)):
            result.score(MODEL, f"{name}_{how}_separators", column)
            result.systems[MODEL][f"{name}_{how}_separators"] = mean_over_drives(
                column, chosen.drives, weights
            )
        mean = result.systems[MODEL][f"bits_per_token_{how}_separators"]
        result.systems[MODEL][f"rate_{how}_separators"] = rate_of(mean, raw)
        result.values[MODEL][f"rate_{how}_separators"] = (raw / own).tolist()
    _floors(subject, chosen, result, raw)
    result.details |= {
        "regime": f"fully teacher-forced, from nothing, in windows of {card.frames} frames",
        "windows_by_segment": dict(each),
        "raw_bits_per_token": raw,
    }
    if found.separators is None:
        result.details["no_separators"] = (
            "the head of this model has no row for BOS, so upstream's number with separators is "
            "not defined"
        )
    return result


def rate_of(bits: Estimate, raw: float) -> Estimate:
    """Compression rate with its interval: raw bits per bit of the model."""
    value, low, high = (None if x is None else raw / x for x in (bits.value, bits.high, bits.low))
    return Estimate(value, low, high, bits.num_clips, bits.num_drives)


def _windows(subject: JudgedModel, card: CommaVQCard) -> Chosen:
    held = subject.held
    if card.num_segments is not None and card.num_segments < len(held):
        held = [held[place] for place in spread(len(held), card.num_segments)]
    windows = commavq_windows(held, card.frames)
    return Chosen(windows, list(range(len(windows))))


def _floors(subject: JudgedModel, chosen: Chosen, result: Result, raw: float) -> None:
    """Floors over evenly spread windows, because a whole split exceeds the memory."""
    found = {"uniform": raw * math.log(2)}
    places = spread(len(chosen.ids), MOST_FLOORED)
    some = Chosen(chosen.windows, [chosen.ids[place] for place in places])
    if subject.train:
        # Frame 0 counts, and the last is there for its BOS alone: as the model is scored.
        scored, vocab = some.tokens()[:, :-1], subject.model.spec.vocab_size
        fitted = floors(subject.train, scored, vocab, from_nothing=True)
        found |= {name: float(nats.mean()) for name, nats in fitted.items()}
    for name, nats in found.items():
        result.floor(name, "nats_without_separators", nats)
        result.floor(name, "bits_per_token_without_separators", nats / math.log(2))
        result.floor(name, "rate_without_separators", raw * math.log(2) / nats)
