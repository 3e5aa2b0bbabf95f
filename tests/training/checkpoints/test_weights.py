"""A file of weights is verified while it is read."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.checkpoints.folder import open_checkpoint, write_checkpoint
from training.checkpoints.weights import hashed_weights
from training.disk.hashing import file_sha256
from training.errors import BadInput


def bytes_read() -> int:
    """Bytes that this process asked for by reading, other than through maps."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_weights_are_mapped_and_not_read_beside_that(tmp_path):
    """A map that is hashed and a file that is read would be two ways through the disk's bytes."""
    path = tmp_path / "run/checkpoints/step-0000001"
    write_checkpoint(path, {"w": torch.zeros(1_000_000)}, {"kind": "test"})
    before = bytes_read()
    open_checkpoint(path, "test")
    assert bytes_read() - before < 100_000


@pytest.mark.parametrize("place", [0, 12, -5, -1])
def test_a_flipped_bit_anywhere_in_the_weights_is_found(tmp_path, place):
    """In the header's length, in the header, in the first tensor, in the last."""
    path = tmp_path / "run/checkpoints/step-0000001"
    write_checkpoint(path, {"a": torch.zeros(1), "b": torch.zeros(1)}, {"kind": "test"})
    content = bytearray((path / "weights.safetensors").read_bytes())
    content[place] ^= 1
    (path / "weights.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match="altered since it was written"):
        open_checkpoint(path, "test")


def test_the_hash_of_tensors_is_that_of_their_file(tmp_path):
    file = tmp_path / "weights.safetensors"
    tensors = {
        "odd": torch.randn(3, 5).bfloat16(),
        "single": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
    }
    save_file(tensors, file, metadata={"from": "elsewhere"})
    weights, found = hashed_weights(file)
    assert found == file_sha256(file)
    assert weights.keys() == tensors.keys()
    assert all(torch.equal(weights[name], tensors[name]) for name in tensors)
