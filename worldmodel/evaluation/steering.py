"""Steering: how hard drives steer."""

from collections.abc import Sequence

import numpy as np

from drives.actions.derived import LEFT
from drives.tokens.store import TokenDrive


def steering_amplitude(drives: Sequence[TokenDrive], names: Sequence[str]) -> dict[str, float]:
    """Steering strength: the 90th percentile of |value| in the train drives."""
    everything = np.concatenate([drive.actions for drive in drives])
    return {
        name: float(np.quantile(np.abs(everything[:, column]), 0.9))
        for column, name in enumerate(names)
        if name in LEFT
    }
