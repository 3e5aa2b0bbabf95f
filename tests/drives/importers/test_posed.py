"""nuScenes and nuPlan: a car on a circle has its speed, yaw rate and curvature in every frame.

Files in the schema of the two; their own files need a licence that a test has not.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numbered_frames import numbers_of as shown
from posed_files import LOG, SPEED, START_US, YAW_RATE, nuplan, nuscenes

from drives.drive import open_drive
from drives.importers.__main__ import main
from drives.importers.base import import_recordings
from drives.importers.formats import RECORDING_FORMATS, recognised
from drives.importers.recording import Recording
from training.errors import BadInput


def numbers_of(recording: Recording) -> list[int]:
    return shown(recording.read(0, len(recording.actions)))


def check_circle(recording: Recording) -> None:
    columns = dict(zip(recording.action_names, recording.actions.T, strict=True))
    assert np.allclose(columns["speed_mps"], SPEED, rtol=1e-3)
    assert np.allclose(columns["yaw_rate_rad_s"], YAW_RATE, rtol=1e-3)
    assert np.allclose(columns["curvature_per_m"], YAW_RATE / SPEED, rtol=1e-2)


def test_scenes_of_nuscenes_are_recordings_with_motion(tmp_path: Path) -> None:
    root = nuscenes(tmp_path)
    assert recognised(root) == "nuscenes"
    first, second = RECORDING_FORMATS["nuscenes"].recordings(root)
    assert (first.id, second.id) == ("scene-0061", "scene-0062")
    assert first.fps == pytest.approx(12, abs=0.1)
    for recording in (first, second):
        check_circle(recording)
        assert numbers_of(recording) == list(range(48))
        assert recording.meta["licence"] == "CC BY-NC-SA 4.0"
    assert first.meta["captions"][0]["text"].startswith("Parked truck")
    assert "captions" not in second.meta
    paths = import_recordings([first], tmp_path / "out", None, (0.5, 0, 0.5))
    assert [c.stop for c in open_drive(paths[0]).captions] == [24]


def test_the_steering_wheel_comes_from_the_can_expansion(tmp_path: Path) -> None:
    root = nuscenes(tmp_path)
    times = np.arange(-0.1, 5, 0.01)
    (root / "can_bus").mkdir()
    entries = [{"utime": START_US + round(t * 1e6), "value": -0.5} for t in times]
    file = root / "can_bus/scene-0061_steeranglefeedback.json"
    file.write_text(json.dumps(entries))
    first, second = RECORDING_FORMATS["nuscenes"].recordings(root)
    assert "steering_wheel_rad" not in second.action_names
    column = first.actions[:, first.action_names.index("steering_wheel_rad")]
    assert np.allclose(column, -0.5)
    file.write_text(json.dumps(entries[:100]))  # it ends before the scene does
    first, _ = RECORDING_FORMATS["nuscenes"].recordings(root)
    assert "steering_wheel_rad" not in first.action_names


def test_missing_images_are_named_and_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = nuscenes(tmp_path / "set")
    gone = sorted((root / "sweeps/CAM_FRONT").glob("*.jpg"))[0]
    gone.unlink()
    with pytest.raises(BadInput, match=f"{gone.name}: cannot be decoded .missing, as are 0 others"):
        RECORDING_FORMATS["nuscenes"].recordings(root)
    first, _ = RECORDING_FORMATS["nuscenes"].recordings(root, on_missing="gap")
    assert len(first.actions) == 47
    check_circle(first)
    options = ["--on-bad", "skip", "--split", "1", "0", "0", "--num-workers", "0"]
    main(["nuscenes", str(root), str(tmp_path / "out"), *options])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["scene-0062-train"]
    assert "1 left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera": "CAM_TOP"}, "one of: CAM_BACK, CAM_FRONT"),
        ({"version": "v1.0-test"}, "--version one of: v1.0-mini"),
    ],
)
def test_wrong_choices_are_told_what_there_is(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        RECORDING_FORMATS["nuscenes"].recordings(nuscenes(tmp_path), **options)


@pytest.mark.parametrize("name", ["scene", "sample", "sensor", "sample_data", "ego_pose"])
def test_damaged_tables_are_named(tmp_path: Path, name: str) -> None:
    root = nuscenes(tmp_path, num_scenes=1)
    file = root / f"v1.0-mini/{name}.json"
    whole = file.read_text()
    for content in (whole[: len(whole) // 2], "{}", "[{}]"):
        file.write_text(content)
        with pytest.raises(BadInput, match=f"{name}.json"):
            RECORDING_FORMATS["nuscenes"].recordings(root)
    file.write_text(whole.replace("n008__CAM_FRONT", "../../secret"))
    if name == "sample_data":
        with pytest.raises(BadInput, match="outside of the data set"):
            RECORDING_FORMATS["nuscenes"].recordings(root)


def test_scenes_of_nuplan_are_recordings_with_motion(tmp_path: Path) -> None:
    file = nuplan(tmp_path)
    before = sorted(p.name for p in file.parent.iterdir()), file.read_bytes()
    for root in (tmp_path, file.parent, file):
        assert recognised(root) == "nuplan"
        first, second = RECORDING_FORMATS["nuplan"].recordings(root)
        assert (first.id, second.id) == (f"{LOG}-scene-000", f"{LOG}-scene-001")
        assert (first.fps, numbers_of(first)) == (10, list(range(40)))
        assert numbers_of(second) == list(range(40, 80))
        check_circle(first)
        check_circle(second)
    assert (sorted(p.name for p in file.parent.iterdir()), file.read_bytes()) == before


def test_what_nuplan_lacks_is_named(tmp_path: Path) -> None:
    file = nuplan(tmp_path)
    read = RECORDING_FORMATS["nuplan"].recordings
    with pytest.raises(BadInput, match="one of: CAM_F0, CAM_L0"):
        read(tmp_path, camera="CAM_B0")
    with pytest.raises(BadInput, match="no images of CAM_L0"):
        read(tmp_path, camera="CAM_L0")
    with pytest.raises(BadInput, match="none of its 40 images is there"):
        read(tmp_path, blobs=tmp_path)
    blobs = tmp_path / "nuplan-v1.1/sensor_blobs"
    blobs.rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="no sensor_blobs/ above it"):
        read(tmp_path)
    assert len(read(tmp_path, blobs=tmp_path / "elsewhere")) == 2
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"\.db: cannot be read"):
        read(tmp_path, blobs=tmp_path / "elsewhere")
