"""Submissions to 1X's second challenge: what is written passes the check, what is not does not."""

import json

import numpy as np
import pytest
import torch

from training.errors import BadInput
from worldmodel.evaluation.challenges.submission import (
    Submitted,
    check_submission,
    write_submission,
)
from worldmodel.evaluation.challenges.top_tokens import TopTokens, top_tokens

WHO = Submitted("masked model", "us", ("A. Author",), "a@example.org", "none", "nowhere")
SIZES = {"num_samples": 2, "grid": (3, 2, 2), "vocab_size": 20, "top": 5}


def samples(count: int = 2):
    torch.manual_seed(0)
    for _ in range(count):
        yield top_tokens(torch.randn(3, 2, 2, 20).log_softmax(-1), 5)


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "submission"
    assert write_submission(out, samples(), WHO) == 2
    return out


def test_what_is_written_is_what_is_read(folder):
    assert check_submission(folder, **SIZES) == WHO
    assert sorted(file.name for file in folder.iterdir()) == ["0.npz", "1.npz", "README.txt"]
    first = next(samples())
    with np.load(folder / "0.npz") as arrays:
        assert (arrays["indices"].dtype, arrays["values"].dtype) == (np.int32, np.float32)
        np.testing.assert_array_equal(arrays["indices"], first.indices)
        np.testing.assert_array_equal(arrays["values"], first.values)
    with pytest.raises(BadInput, match="exists already"):
        write_submission(folder, samples(), WHO)


def test_the_published_size(tmp_path):
    """One sample of the real size, in the real layout."""
    sample = TopTokens(
        torch.arange(500, dtype=torch.int32).expand(3, 32, 32, 500),
        torch.full((3, 32, 32, 500), -7.0),
    )
    write_submission(tmp_path / "out", [sample], WHO)
    check_submission(tmp_path / "out", num_samples=1)
    with pytest.raises(BadInput, match=r"holds 1 \.npz files; the challenge has 450"):
        check_submission(tmp_path / "out")


def put(folder, **arrays):
    with np.load(folder / "1.npz") as found:
        np.savez(folder / "1.npz", **{**found, **arrays})


def array(name: str, change):
    def harm(folder):
        with np.load(folder / "1.npz") as found:
            put(folder, **{name: change(found[name].copy())})

    return harm


def twice(indices):
    indices[0, 0, 0, 1] = indices[0, 0, 0, 0]
    return indices


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "1.npz").unlink(), r"holds 1 \.npz files; the challenge has 2"),
        (lambda f: (f / "1.npz").write_bytes(b"PK"), r"1\.npz: is no \.npz file"),
        (array("indices", lambda x: x[..., :4]), r"indices is int32 of shape \[3, 2, 2, 4\]"),
        (array("indices", lambda x: x.astype(np.int64)), r"indices is int64 of shape"),
        (array("values", lambda x: x.astype(np.float64)), r"values is float64 of shape"),
        (array("indices", lambda x: x + 15), r"indices are not in 0 \.\. 19"),
        (array("indices", twice), "a token is listed twice"),
        (array("values", lambda x: x * np.nan), "values are not finite"),
        (array("values", lambda x: x + 9), "sum to a probability of"),
        (lambda f: put(f, more=np.zeros(1)), r"holds indices\.npy, more\.npy, values\.npy"),
        (lambda f: (f / "README.txt").unlink(), r"README\.txt: cannot be read"),
        (
            lambda f: (f / "README.txt").write_text(json.dumps({"method": "m", "team": "t"})),
            r"README\.txt: authors is missing",
        ),
    ],
)
def test_what_is_wrong_is_named(folder, harm, message):
    harm(folder)
    with pytest.raises(BadInput, match=message):
        check_submission(folder, **SIZES)
    with pytest.raises(BadInput, match="team: is empty"):
        Submitted("m", "", ("a",), "e", "i", "c")
