"""Fuzzed files of recordings of many files: a recording or BadInput, and nothing else."""

import faulthandler
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from attacks.fuzzed import TIMEOUT_S, mutations
from lerobot_files import FRONT, driving_set
from opendv_files import opendv
from posed_files import LOG, nuplan, nuscenes

from drives.importers.formats import RECORDING_FORMATS
from training.errors import BadInput

COUNT = 700  # for each file
EPISODES, ROWS = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
TABLES = ("scene", "sample", "sensor", "calibrated_sensor", "sample_data", "ego_pose")
FILES: list[tuple[str, Callable[[Path], Path], str]] = [
    *(("lerobot", driving_set, f) for f in (EPISODES, ROWS, "meta/info.json")),
    ("lerobot", driving_set, "meta/tasks.parquet"),
    ("lerobot", driving_set, f"videos/{FRONT}/chunk-000/file-000.mp4"),
    *(("nuscenes", nuscenes, f"v1.0-mini/{name}.json") for name in TABLES),
    ("nuplan", nuplan, f"nuplan-v1.1/splits/mini/{LOG}.db"),
    ("opendv", opendv, "meta/OpenDV-YouTube.json"),
    ("opendv", opendv, "10hz_YouTube_val.json"),
    ("opendv", opendv, "videos/J_Utah/abcDEF_1-23.mp4"),
]


@pytest.mark.attack
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "make", "damaged"), FILES)
def test_a_fuzzed_file_gives_recordings_or_bad_input(
    name: str, make: Callable[[Path], Path], damaged: str, tmp_path: Path
) -> None:
    made = make(tmp_path / "set")
    root = tmp_path / "set" if made.is_file() else made
    options = {"camera": "front"} if name == "lerobot" else {}
    whole = (root / damaged).read_bytes()
    found: Counter[str] = Counter()
    for kind, content in mutations(whole, COUNT, seed=3):
        (root / damaged).write_bytes(content)
        faulthandler.dump_traceback_later(TIMEOUT_S, exit=True)
        try:
            recordings = RECORDING_FORMATS[name].recordings(root, **options)
            for recording in recordings[:1]:
                frames = list(recording.read(0, min(4, len(recording.actions))))
                assert len(frames) == min(4, len(recording.actions)), kind
            found["read"] += 1
        except BadInput:
            found["refused"] += 1
        finally:
            faulthandler.cancel_dump_traceback_later()
    print(f"\n{name}, {damaged}: {dict(found)}")
    assert found["refused"] > COUNT // 20
