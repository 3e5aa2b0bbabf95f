"""Camera images and poses of the car -> recordings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from drives.importers.recording import ImportOptions, Recording
from drives.importers.recordings.steering.sessions import (
    MAX_GAP_S,
    Rows,
    recordings_of,
    sessions_of,
)
from training.errors import BadInput

SIGNAL_GAP_S = 0.5  # longest time between two poses
MICROSECONDS = 1e-6
LICENCE = "CC BY-NC-SA 4.0"  # of nuScenes and of nuPlan


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

    def signals(self, where: Path) -> list[Signal]:
        """Speed and yaw rate; BadInput names `where` and what is no orientation."""
        return [
            speed_from_positions(self.times_s, self.positions_m),
            yaw_rate_from_orientations(self.times_s, self.orientations_wxyz, where=str(where)),
        ]


def licence_of(options: ImportOptions) -> str:
    """What was given, else that of both data sets."""
    return LICENCE if options.licence == ImportOptions.licence else options.licence


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
    where: Path,
    on_missing: str,
    caption: str = "",
) -> list[Recording]:
    """Recordings of one camera, cut at pauses as those of any log.

    Columns are the signals' and `curvature_per_m`. Row t is their mean between the times of image t
    and t+1, so that it is right also where the camera's steps are uneven.

    Args:
        on_missing: as in `RowOptions`.
        caption: of all frames; "" for none.

    Raises:
        BadInput: images are missing or of several sizes, or the signals do not cover them.
    """
    rows = Rows(where, images, times_s, (), np.zeros((len(images), 0)))
    parts = [
        at_frames(signals, times_s[start:stop], SIGNAL_GAP_S, str(where))
        for start, stop in sessions_of(rows)
    ]
    names, values = parts[0][0], np.concatenate([part[1] for part in parts])
    speed, yaw_rate = (values[:, names.index(of)] for of in ("speed_mps", "yaw_rate_rad_s"))
    actions = np.column_stack([values, curvature_per_m(yaw_rate, speed)])
    rows = replace(rows, action_names=(*names, "curvature_per_m"), actions=actions)
    steps = np.diff(times_s)
    steady = steps[(steps > 0) & (steps <= MAX_GAP_S)]
    # The mean, not the median: steps of nuScenes are 0.05 or 0.1 s for a camera of 12 Hz.
    fps = round(float(1 / steady.mean()), 2) if len(steady) else None
    found = recordings_of(rows, name, meta, on_missing, fps)
    if not caption:
        return found
    texts = [[{"text": caption, "start": 0, "stop": len(r.actions)}] for r in found]
    return [replace(r, meta={**meta, "captions": own}) for r, own in zip(found, texts, strict=True)]
