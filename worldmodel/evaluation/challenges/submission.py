"""Submissions to 1X's second challenge: a .npz per sample, and who made them.

0.npz ... 449.npz    indices int32 and values float32, both [3 32 32 500]
README.txt           JSON: method, team, authors, e-mail, institution, country
"""

import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from drives.importers.tokens.npy_file import read_npy
from drives.tokens.store import TokenDrive
from training.disk.judging import judged
from training.disk.leftovers import written_whole
from training.disk.places import refuse_existing
from training.disk.records import read_json
from training.errors import BadInput
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.challenges.top_tokens import (
    TOP,
    TopTokens,
    check_independent,
    next_step,
)
from worldmodel.windows import collate

NUM_SAMPLES, GRID, VOCAB = 450, (3, 32, 32), 64_000
README = "README.txt"
# What `zipfile` raises on damaged archives, encrypted ones and unknown compressions.
BROKEN_ZIP = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, ValueError, RuntimeError, KeyError),
)
ARRAYS = {"indices": np.dtype(np.int32), "values": np.dtype(np.float32)}


@dataclass(frozen=True)
class Submitted:
    """The content of `README.txt`.

    Raises:
        BadInput: a field is empty.
    """

    method: str
    team: str
    authors: tuple[str, ...]
    email: str
    institution: str
    country: str

    def __post_init__(self) -> None:
        for entry in fields(self):
            if not getattr(self, entry.name):
                raise BadInput(f"{entry.name}: is empty; the challenge asks for it")


def write_submission(out: Path, samples: Iterable[TopTokens], who: Submitted) -> int:
    """Write the samples in their order; returns how many.

    Args:
        samples: each [3 32 32 top].

    Raises:
        BadInput: the folder exists.
    """
    refuse_existing("out", out)
    count = 0
    with written_whole(out) as folder:
        folder.mkdir(parents=True)
        (folder / README).write_text(json.dumps(asdict(who), indent=1) + "\n")
        for count, sample in enumerate(samples, start=1):
            arrays = {name: getattr(sample, name).cpu().numpy() for name in ARRAYS}
            np.savez_compressed(
                folder / f"{count - 1}.npz",
                **{name: arrays[name].astype(dtype) for name, dtype in ARRAYS.items()},
            )
    return count


def submit(
    network: Dynamics,
    drives: Sequence[TokenDrive],
    out: Path,
    who: Submitted,
    num_samples: int = NUM_SAMPLES,
    device: str = "cpu",
) -> None:
    """Write the distribution of the clip after every clip of some drives, in their order.

    Raises:
        BadInput: another number of clips, a network that needs real tokens of the clip that it
            predicts, or one whose time step is no clip.
    """
    count = sum(len(drive.tokens) for drive in drives)
    if count != num_samples:
        raise BadInput(
            f"the drives hold {count} clips, and {num_samples} samples are asked for; give the "
            "test set, or another number of samples"
        )
    check_independent(network)
    if network.spec.grid[0] == 1:
        raise BadInput("submission: this model's time step is one grid; train one on data=onex_v2")
    write_submission(out, _samples(network, drives, device), who)


def _samples(network: Dynamics, drives: Sequence[TokenDrive], device: str) -> Iterator[TopTokens]:
    most = network.config.context_steps - 1
    for drive in drives:
        for stop in range(1, len(drive.tokens) + 1):
            past = slice(max(0, stop - most), stop)
            clip = collate([(drive.tokens[past], drive.actions[past])]).to(device)
            actions = clip.actions if network.num_actions else None
            top = next_step(network, clip.tokens, actions)
            shape = (*network.spec.grid, -1)
            yield TopTokens(top.indices.view(shape), top.values.view(shape))


def check_submission(
    folder: Path,
    num_samples: int = NUM_SAMPLES,
    grid: tuple[int, int, int] = GRID,
    vocab_size: int = VOCAB,
    top: int = TOP,
) -> Submitted:
    """Read a submission as a stranger would.

    Raises:
        BadInput: a sample is missing or damaged, has other arrays, lists a token twice or one out
            of the vocabulary, or its values are no logarithms of probabilities; names the file.
    """
    who: Submitted = judged(Submitted, read_json(folder / README), str(folder / README))
    found = sorted(folder.glob("*.npz"))
    if len(found) != num_samples:
        raise BadInput(f"{folder}: holds {len(found)} .npz files; the challenge has {num_samples}")
    for file in found:
        _check_sample(file, (*grid, top), vocab_size)
    return who


def _check_sample(file: Path, shape: tuple[int, ...], vocab_size: int) -> None:
    arrays = _arrays(file, shape)
    indices, values = arrays["indices"].reshape(-1, shape[-1]), arrays["values"]
    if indices.min() < 0 or indices.max() >= vocab_size:
        raise BadInput(f"{file}: indices are not in 0 .. {vocab_size - 1}; write the tokens' own")
    if (np.diff(np.sort(indices, axis=-1)) == 0).any():
        raise BadInput(f"{file}: a token is listed twice at one position; list each once")
    if not np.isfinite(values).all():
        raise BadInput(f"{file}: values are not finite; leave out tokens that cannot come")
    most = float(np.exp(values.astype(np.float64)).sum(-1).max())
    if most > 1 + 1e-3:
        raise BadInput(
            f"{file}: the values sum to a probability of {most:.3g} at one position; give natural "
            "logarithms of probabilities over the whole vocabulary, no logits"
        )


def _arrays(file: Path, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The arrays of a .npz, whose headers are judged before their data is read."""
    found = {}
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            if set(sizes) != {f"{name}.npy" for name in ARRAYS}:
                raise BadInput(
                    f"{file}: holds {', '.join(sorted(sizes)) or 'nothing'}; the challenge takes "
                    f"{', '.join(ARRAYS)}"
                )
            for name in ARRAYS:
                judge = partial(_check_header, file, name, shape)
                with archive.open(f"{name}.npy") as stream:
                    size = sizes[f"{name}.npy"]
                    found[name] = read_npy(stream, size, f"{file}: {name}", judge)
    except BadInput:
        raise
    except BROKEN_ZIP as error:
        raise BadInput(f"{file}: is no .npz file ({error}); write it again") from error
    return found


def _check_header(
    file: Path, name: str, wanted: tuple[int, ...], shape: tuple[int, ...], dtype: np.dtype
) -> None:
    if (shape, dtype) != (wanted, ARRAYS[name]):
        raise BadInput(
            f"{file}: {name} is {dtype} of shape {list(shape)}; the challenge takes "
            f"{ARRAYS[name]} of {list(wanted)}"
        )
