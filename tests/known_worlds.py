"""Known-entropy worlds that are small enough to enumerate every frame."""

import itertools

import numpy as np

from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import YAWS

SKEWED = (0.2, 0.3, 0.5)  # unequal, so that a swap of two yaws shows
TINY = [
    KnownEntropyConfig((1, 2, 2), 2, 0.3, SKEWED),
    KnownEntropyConfig((1, 2, 2), 3, 0.15, SKEWED),
    KnownEntropyConfig((1, 1, 3), 3, 0.4, SKEWED),
    KnownEntropyConfig((1, 2, 3), 2, 0.25, SKEWED),
    KnownEntropyConfig((1, 1, 4), 3, 0.1, (0.0, 0.25, 0.75)),
    KnownEntropyConfig((1, 3, 1), 2, 0.5, SKEWED),
]


def all_frames(config: KnownEntropyConfig) -> np.ndarray:
    _, height, width = config.grid
    frames = itertools.product(range(config.vocab_size), repeat=height * width)
    return np.array(list(frames)).reshape(-1, height, width)


def likelihoods(config: KnownEntropyConfig) -> np.ndarray:
    """p(next | past, yaw) [yaw past next height width prefix factors], by the definition."""
    frames = all_frames(config)
    p, vocab = config.resample_prob, config.vocab_size
    result = []
    for yaw in YAWS:
        width = config.grid[2]
        turned = np.stack([frames[:, :, (c - yaw) % width] for c in range(width)], axis=2)
        same = turned[:, None] == frames[None, :]
        result.append(np.where(same, 1 - p + p / vocab, p / vocab))
    return np.stack(result)
