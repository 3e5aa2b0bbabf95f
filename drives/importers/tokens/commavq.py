"""commaVQ: minutes of highway driving, published as tokens (MIT, github.com/commaai/commavq)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from drives.importers.tokens.commavq_segments import (
    NUM_POSES,
    SPEC,
    Segment,
    files_of,
    has_poses,
    list_segments,
    read_segments,
)
from drives.importers.tokens.token_import import content_key, import_tokens
from drives.splits.base import default_split
from drives.tokens.store import TokenDrive, TokenStore
from drives.tokens.writer import NewDrive
from training.errors import BadInput

POSE_NAMES = tuple(f"pose_{index}" for index in range(NUM_POSES))  # upstream names none


def import_commavq(
    source: Path, out: Path, num_train: int = 1000, num_test: int = 200
) -> TokenStore:
    """Write commaVQ's segments into a token store; drives already in the store are kept.

    Poses become action columns. As in upstream's recipe (upstream issue 20), a pose comes before
    the tokens of its frame, so row t holds the pose of frame t + 1. The last row explains no
    recorded frame; it repeats the row before.

    Args:
        source: a tar, a folder of tars, a folder of `*.token.npy` (and `*.pose.npy`), or one
            recording: integers [frame 8 16] or [frame 128] in a .npy file.
        num_train: the first frames of a single recording become drive `<name>-train`; none with 0.
        num_test: the last frames of a single recording become drive `<name>-test`. Of several
            recordings, each is a drive, with the default split (docs/drives.md).

    Raises:
        BadInput: the segments cannot be used, or `out` holds something else.
    """
    files = files_of(Path(source))
    key = f"{content_key('commavq', files, out.parent)}-{num_train}-{num_test}"

    def drives() -> Iterator[NewDrive]:
        names = list_segments(files)
        if len(names) == 1:
            return _cut(next(read_segments(files)), num_train, num_test)
        return whole_drives(files, _splits(names, files))

    return import_tokens(out, key, SPEC, planned_actions(source), drives)


def planned_actions(source: Path) -> tuple[str, ...]:
    """The action columns that the store will have.

    Raises:
        BadInput: there is nothing to import.
    """
    return POSE_NAMES if has_poses(files_of(Path(source))) else ()


def _splits(names: list[str], files: list[Path]) -> dict[str, str]:
    splits = {
        name: default_split(name, index, len(names)) for index, name in enumerate(sorted(names))
    }
    if "train" not in splits.values() or not {"val", "test"} & set(splits.values()):
        raise BadInput(
            f"{files[0].parent}: of {len(names)} segments all would be in the split "
            f"{splits[names[0]]} (a hash of the name decides); add some"
        )
    return splits


def _cut(segment: Segment, num_train: int, num_test: int) -> Iterator[NewDrive]:
    """Both ends of a recording that stands alone."""
    num = len(segment.tokens)
    if num_train < 0 or num_test < 1 or num_train + num_test > num:
        raise BadInput(
            f"{segment.where}: {num_train} frames to train and {num_test} to test asked of "
            f"{num}; give numbers that fit in, of which only num_train may be 0"
        )
    for split, start, stop in (("train", 0, num_train), ("test", num - num_test, num)):
        if start == stop:
            continue
        tokens, actions = segment.tokens[start:stop], _actions(segment)[start:stop]
        meta = {"source": f"commaVQ, {segment.where}", "source_frames": [start, stop]}
        yield TokenDrive(f"{segment.name}-{split}", split, tokens, actions), meta


def whole_drives(files: list[Path], splits: dict[str, str]) -> Iterator[NewDrive]:
    """Every segment as a drive in its split, by name; BadInput as `read_segments`."""
    for segment in read_segments(files):
        drive = TokenDrive(segment.name, splits[segment.name], segment.tokens, _actions(segment))
        yield drive, {"source": f"commaVQ, {segment.where}"}


def _actions(segment: Segment) -> Float[np.ndarray, "frame action"]:
    if segment.poses is None:
        return np.zeros((len(segment.tokens), 0), np.float32)
    return np.concatenate([segment.poses[1:], segment.poses[-1:]])
