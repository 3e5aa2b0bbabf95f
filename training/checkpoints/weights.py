"""A file of weights, read and verified; where it is verified, each byte is read once."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from training.disk.hashing import file_sha256
from training.errors import BadInput

UNREADABLE = (SafetensorError, OSError)


def verified_weights(file: Path, sha256: str) -> dict[str, torch.Tensor]:
    """The tensors of a file; BadInput unless it has this hash."""
    try:
        weights, found = hashed_weights(file)
    except UNREADABLE as error:
        refuse_altered(file, sha256)
        raise _unreadable(file, error) from error
    refuse_altered(file, sha256, found)
    return weights


def weights_in(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that was verified before."""
    try:
        return load_file(file)
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def hashed_weights(file: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a safetensors file, and the sha256 of the file.

    The file is mapped, and the hash walks through the map tensor by tensor. The library refuses a
    file with bytes between its tensors, so header and tensors are all of it.

    Raises:
        SafetensorError, OSError: the file cannot be read.
    """
    weights = {}
    with safe_open(file, framework="pt") as opened, file.open("rb") as raw:
        length = raw.read(8)
        header = raw.read(int.from_bytes(length, "little"))
        digest = hashlib.sha256(length + header)
        places = json.loads(header)
        places.pop("__metadata__", None)
        for name in sorted(places, key=lambda name: places[name]["data_offsets"]):
            weights[name] = opened.get_tensor(name)
            digest.update(weights[name].reshape(-1).view(torch.uint8).numpy())
    return weights, digest.hexdigest()


def refuse_altered(file: Path, sha256: str, found: str = "") -> None:
    """BadInput unless the file has this hash; it is hashed where none was `found`."""
    try:
        found = found or file_sha256(file)
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from error
    if found != sha256:
        raise BadInput(f"{file}: altered since it was written; use another checkpoint")


def _unreadable(file: Path, error: Exception) -> BadInput:
    return BadInput(f"{file}: cannot be read ({error})")
