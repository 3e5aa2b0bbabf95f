"""Weights from packages of the registry."""

import pickle

import numpy as np
import pytest

from training.foreign.registry import unpickled_arrays


def test_only_arrays_are_unpickled() -> None:
    array = {"kernel": np.arange(6.0).reshape(2, 3), "scale": np.float32(2)}
    found = unpickled_arrays(pickle.dumps(array))
    assert np.array_equal(found["kernel"], array["kernel"])
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        unpickled_arrays(pickle.dumps(print))
