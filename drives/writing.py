"""Writes the folder of a drive, and reads its `drive.json`."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from jaxtyping import Float, UInt8

from drives import video
from drives.actions.table import check_actions
from drives.splits.base import SPLITS
from training.disk.hashing import file_sha256
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.records import read_json
from training.errors import BadInput

RECORDED = ("video_sha256", "actions_sha256")  # what `write_drive` adds to drive.json


def write_drive(
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "height width 3"]],
    actions: Float[np.ndarray, "frame action"],
    action_names: Sequence[str],
    meta: dict[str, Any],
) -> None:
    """Write a drive folder; it gets its name only when it is complete.

    `meta` must hold `fps`; importers add `source`, `licence` and `split`, this function the hashes
    `RECORDED`.

    Raises:
        BadInput: the folder exists, or the drive would not open.
    """
    if path.exists():
        raise BadInput(f"{path}: exists already; nothing is overwritten, choose another folder")
    check_meta(path / "drive.json", meta)
    _check_finite(path / "drive.json", meta)
    check_actions(path / "actions.csv", action_names, actions)
    sweep_leftovers(path.parent, f"{path.name}.*")
    with written_whole(path) as partial:
        partial.mkdir()
        count = video.write_video(partial / "video.mp4", frames, meta["fps"])
        if count != len(actions):
            raise BadInput(f"{path}: {len(actions)} action rows for {count} frames; give one each")
        columns = {n: actions[:, i].astype(np.float32) for i, n in enumerate(action_names)}
        if columns:
            pa.csv.write_csv(pa.table(columns), partial / "actions.csv")
        files = ("video.mp4", "actions.csv") if columns else ("video.mp4",)
        digests = (file_sha256(partial / name) for name in files)
        meta = {**meta, **dict(zip(RECORDED, digests, strict=False))}
        (partial / "drive.json").write_text(json.dumps(meta, indent=2) + "\n")


def _check_finite(file: Path, meta: dict[str, Any]) -> None:
    for name, entry in meta.items():
        try:
            json.dumps(entry, allow_nan=False)
        except ValueError as error:
            raise BadInput(
                f"{file}: {name} would hold NaN or infinity, which JSON has not; leave such values "
                "out"
            ) from error


def read_meta(path: Path) -> dict[str, Any]:
    """The content of a folder's `drive.json`; BadInput where it is missing or wrong."""
    file = path / "drive.json"
    if not os.path.lexists(file):
        raise BadInput(f'{file}: missing; write at least {{"fps": 10}}')
    return check_meta(file, read_json(file))


def check_meta(file: Path, meta: Any) -> dict[str, Any]:
    fps = meta.get("fps") if isinstance(meta, dict) else None
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < 1000:
        raise BadInput(f"{file}: fps is {fps!r}; give frames per second as a positive number")
    if meta.get("split") not in (*SPLITS, None):
        raise BadInput(f"{file}: split is {meta['split']!r}; use one of {', '.join(SPLITS)}")
    return meta
