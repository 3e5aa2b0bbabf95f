"""Camera images and poses of the car -> recordings."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float

from drives.actions.derived import (
    curvature_per_m,
    speed_from_positions,
    yaw_rate_from_orientations,
)
from drives.actions.signals import Signal, at_frames
from drives.actions.table import check_actions
from drives.importers.recording import Recording
from drives.video.images import check_sizes
from training.errors import BadInput

logger = logging.getLogger(__name__)

MAX_GAP_S = 0.5  # a longer one between two images ends a recording
MIN_FRAMES = 20  # a shorter piece cannot be cut into three splits
MICROSECONDS = 1e-6


@dataclass(frozen=True)
class Poses:
    """Where the car was.

    Attributes:
        times_s: float64 [sample].
        positions_m: float64 [sample axis], in the map's axes.
        orientations_wxyz: float64 [sample 4], from the car's axes (forward, left, up) to the map's.
    """

    times_s: Float[np.ndarray, " sample"]
    positions_m: Float[np.ndarray, "sample 3"]
    orientations_wxyz: Float[np.ndarray, "sample 4"]

    def signals(self, where: str) -> list[Signal]:
        """Speed and yaw rate; BadInput names `where` and what is no orientation."""
        return [
            speed_from_positions(self.times_s, self.positions_m),
            yaw_rate_from_orientations(self.times_s, self.orientations_wxyz, where=where),
        ]


def inside(root: Path, name: str, where: Path) -> Path:
    """The image that a table names; BadInput where the name leads out of `root`."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise BadInput(f"{where}: image {name!r} lies outside of the data set; restore the table")
    return root / path


def posed_recordings(
    name: str,
    images: Sequence[Path],
    times_s: Float[np.ndarray, " frame"],
    signals: Sequence[Signal],
    meta: dict[str, Any],
    where: str,
    caption: str = "",
) -> list[Recording]:
    """Recordings of one camera; a pause ends one and begins the next, `NAME-00`, `NAME-01`, ...

    Columns are the signals' and `curvature_per_m`. Row t is their mean between the times of image t
    and t+1, so that it is right also where the camera's steps are uneven.

    Args:
        caption: of all frames; "" for none.

    Raises:
        BadInput: images are missing or of several sizes, or the signals do not cover them.
    """
    missing = [image for image in images if not image.is_file()]
    if missing:
        raise BadInput(
            f"{where}: {len(missing)} of {len(images)} images are missing, the first is "
            f"{missing[0]}; download that part, or leave it out (--on-bad=skip)"
        )
    steps = np.diff(times_s)
    edges = [0, *(np.flatnonzero(steps > MAX_GAP_S) + 1).tolist(), len(images)]
    pieces = [(a, b) for a, b in pairwise(edges) if b - a >= MIN_FRAMES]
    if not pieces:
        raise BadInput(
            f"{where}: no {MIN_FRAMES} images without a pause of {MAX_GAP_S:g} s; leave it out "
            "(--on-bad=skip)"
        )
    if len(edges) > 2:
        logger.warning("%s: %d pauses; made %d recordings", where, len(edges) - 2, len(pieces))
    check_sizes(list(images))
    # The mean, not the median: steps of nuScenes are 0.05 or 0.1 s for a camera of 12 Hz.
    fps = round(float(1 / np.mean(np.concatenate([steps[a : b - 1] for a, b in pieces]))), 2)
    found = []
    for number, (start, stop) in enumerate(pieces):
        names, rows = at_frames(signals, times_s[start:stop], MAX_GAP_S, where)
        curvature = curvature_per_m(
            rows[:, names.index("yaw_rate_rad_s")], rows[:, names.index("speed_mps")]
        )
        names, rows = (*names, "curvature_per_m"), np.append(rows, curvature[:, None], axis=1)
        check_actions(Path(where), names, rows)
        own = f"{name}-{number:02d}" if len(pieces) > 1 else name
        whole = {"text": caption, "start": 0, "stop": stop - start}
        about = {**meta, "captions": [whole]} if caption else meta
        found.append(Recording(own, tuple(images[start:stop]), fps, names, rows, about))
    return found
