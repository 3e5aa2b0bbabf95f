"""The card `floors`: what do predictors score that know nothing of driving?"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from worldmodel.evaluation.cards.config import FloorsCard
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.floors.nearest import LEAK, Neighbours, nearest_neighbours
from worldmodel.evaluation.subject import Chosen, JudgedModel

NEAREST = "nearest_neighbour"
NAMED = 20  # leaks that are listed


def measure(subject: JudgedModel, card: FloorsCard) -> Result:
    """Floors of every window, nearest train frames included, and the windows that leak."""
    chosen = subject.windows(subject.network.config.context_steps, card.num_windows)
    result = Result(chosen.record(), chosen.drives, chosen.names)
    floors_into(result, subject, chosen)
    vocab = subject.model.spec.vocab_size
    counts = np.full(vocab, 0.5)
    for drive in subject.train:
        counts += 0 if drive.damage else np.bincount(drive.tokens.ravel(), minlength=vocab)
    found = nearest_neighbours(subject.train, chosen.tokens(), counts / counts.sum())
    for name, unit in (("nats_per_token", 1.0), ("bits_per_token", math.log(2))):
        result.floor(NEAREST, name, found.nats / unit)
    result.score(NEAREST, "equal_cells", found.share)
    result.details |= _leaks(found, chosen)
    return result


def floors_into(result: Result, subject: JudgedModel, chosen: Chosen) -> None:
    """Put the floors on the model's own windows into a table of cross entropies."""
    put_floors(result, subject.floors(chosen), subject.model.spec.vocab_size)


def put_floors(
    result: Result, found: Mapping[str, Float[np.ndarray, "window step"]], vocab: int
) -> None:
    """Put floors and a uniform guess, in nats and bits per token."""
    for name, nats in found.items():
        result.floor(name, "nats_per_token", nats.mean(1))
        result.floor(name, "bits_per_token", nats.mean(1) / math.log(2))
    result.floor("uniform", "nats_per_token", math.log(vocab))
    result.floor("uniform", "bits_per_token", math.log2(vocab))


def _leaks(found: Neighbours, chosen: Chosen) -> dict[str, Any]:
    leaks = found.leaks()
    named = [
        {"window": chosen.names[i], "train": found.places[i], "equal_cells": float(found.share[i])}
        for i in sorted(leaks, key=lambda i: -found.share[i])[:NAMED]
    ]
    told = f"{len(leaks)} of {len(found.share)} windows hold a frame that equals one of the train "
    lines = [f"{told}drives in {LEAK:.0%} of its cells or more"]
    lines += [f"  {leak['window']} and {leak['train']}" for leak in named]
    return {"steps": found.steps, "num_leaks": len(leaks), "leaks": named, "lines": lines}
