"""The registry: every foreign format by the name that `python -m drives.importers` takes."""

from collections.abc import Mapping
from pathlib import Path

from drives.importers.recording import RecordingFormat
from drives.importers.recordings import (
    comma2k19,
    dmc,
    frames,
    lerobot,
    opendv,
    rosbag,
    videos,
)
from drives.importers.recordings.posed import nuplan, nuscenes
from drives.importers.recordings.steering import donkeycar, sully_chen, udacity, udacity_car
from drives.importers.tokens.formats import IMPORTED_FORMATS, TOKEN_FORMATS, recognised_format
from training.errors import BadInput

# Recognised in this order: the plainest layout comes last.
RECORDING_FORMATS: Mapping[str, RecordingFormat] = {
    "comma2k19": comma2k19.FORMAT,
    "dmc": dmc.FORMAT,
    "rosbag": rosbag.FORMAT,
    "lerobot": lerobot.FORMAT,
    "nuscenes": nuscenes.FORMAT,
    "opendv": opendv.FORMAT,
    "nuplan": nuplan.FORMAT,
    "udacity": udacity.FORMAT,
    "udacity_car": udacity_car.FORMAT,
    "sully_chen": sully_chen.FORMAT,
    "donkeycar": donkeycar.FORMAT,
    "videos": videos.FORMAT,
    "frames": frames.FORMAT,
}


def recognised(root: Path) -> str | None:
    """The name of the format of what lies at `root`, by names of files; None: no format of ours."""
    for name, format in RECORDING_FORMATS.items():
        try:
            format.find(root, format.options())
        except BadInput:
            continue
        return name
    return recognised_format(root)


__all__ = ["IMPORTED_FORMATS", "RECORDING_FORMATS", "TOKEN_FORMATS", "recognised"]
