"""commaVQ as nanoGPT reads it: `train.bin`, one stream of uint16 (upstream's nanogpt/prepare.py).

A frame is BOS (1024) and its 128 tokens, row by row; a segment ends with EOT (1025). There are no
poses and no names.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

from drives.importers.tokens.commavq_segments import MAX_FRAMES, SPEC
from drives.importers.tokens.token_import import content_key, import_tokens
from drives.splits.base import SPLITS, default_split
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenDrive, TokenStore
from drives.tokens.writer import NewDrive
from training.errors import BadInput

BOS, EOT = SPEC.vocab_size, SPEC.vocab_size + 1
FRAME = 1 + SPEC.tokens_per_step
KIND = np.dtype("<u2")


def find_bins(root: Path) -> list[Path]:
    """`train.bin`, `val.bin`, `test.bin` of a folder, or the file itself.

    Raises:
        BadInput: there are none.
    """
    if root.is_file() and root.suffix == ".bin":
        return [root]
    found = [path for split in SPLITS if (path := root / f"{split}.bin").is_file()]
    if not found:
        raise BadInput(f"{root}: holds no train.bin or val.bin of commaVQ's nanogpt/prepare.py")
    return found


def plan_bins(root: Path) -> tuple[TokenSpec, tuple[str, ...]]:
    """Spec and action columns of the store to be; BadInput as in `find_bins`."""
    find_bins(root)
    return SPEC, ()


def import_bins(root: Path, out: Path) -> TokenStore:
    """Write every segment as a drive `<file>-000000`, ...

    Where several files are there, their names are the splits; of one alone, the number of the
    segment decides (docs/drives.md).

    Raises:
        BadInput: a stream breaks off, is big-endian, or holds something else between two BOS.
    """
    files = find_bins(root)
    for file in files:  # all of it before the first drive is written
        for _ in read_segments(file):
            pass
    key = content_key("commavq_bin", files, out.parent)
    return import_tokens(out, key, SPEC, (), lambda: _drives(files))


def _drives(files: list[Path]) -> Iterator[NewDrive]:
    for file in files:
        segments = list(_bounds(file, _stream(file)))
        for index, tokens in enumerate(read_segments(file)):
            name = f"{file.stem}-{index:06d}"
            split = file.stem if len(files) > 1 else default_split(name, index, len(segments))
            actions = np.zeros((len(tokens), 0), np.float32)
            yield TokenDrive(name, split, tokens, actions), {"source": f"commaVQ, {file}"}


def read_segments(file: Path) -> Iterator[UInt16[np.ndarray, "frame 8 16"]]:
    """Every segment, one at a time; BadInput as in `import_bins`."""
    stream = _stream(file)
    for start, stop in _bounds(file, stream):
        frames = np.array(stream[start:stop]).reshape(-1, FRAME)
        for wrong in (frames[:, :1] != BOS, frames[:, 1:] >= SPEC.vocab_size):
            if wrong.any():
                frame, at = np.argwhere(wrong)[0]
                place = start + int(frame) * FRAME + (int(at) + 1 if wrong.shape[1] > 1 else 0)
                raise BadInput(
                    f"{file}: number {place} is {stream[place]}; BOS ({BOS}) begins each frame of "
                    f"{SPEC.tokens_per_step} tokens below {SPEC.vocab_size}: is it another "
                    "tokenizer's, or damaged?"
                )
        yield frames[:, 1:].reshape(-1, *SPEC.grid[1:])


def _stream(file: Path) -> np.ndarray:
    try:
        size = file.stat().st_size
        if not size or size % KIND.itemsize:
            raise BadInput(f"{file}: has {size} bytes, no whole number of uint16; copy it again")
        stream = np.memmap(file, KIND, "r")
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror}); copy it again") from error
    if stream[0] == np.array(BOS, KIND).byteswap():
        raise BadInput(f"{file}: is big-endian; write it as little-endian uint16")
    return stream


def _bounds(file: Path, stream: np.ndarray) -> Iterator[tuple[int, int]]:
    """Place of the first BOS, and of the EOT, of every segment."""
    start, block = 0, 1 << 22
    for low in range(0, len(stream), block):
        for stop in (low + np.flatnonzero(stream[low : low + block] == EOT)).tolist():
            if (stop - start) % FRAME or not 0 < (stop - start) // FRAME <= MAX_FRAMES:
                raise BadInput(
                    f"{file}: the segment at number {start} has {stop - start} numbers; give 1 to "
                    f"{MAX_FRAMES} frames of {FRAME} before each EOT ({EOT})"
                )
            yield start, stop
            start = stop + 1
    if start != len(stream):
        raise BadInput(
            f"{file}: ends within the segment at number {start}, without an EOT ({EOT}); it is cut "
            "short: copy it again"
        )
