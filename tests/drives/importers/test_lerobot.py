"""LeRobotDataset: each episode gets its own rows, frames, captions; what is wrong is named."""

import http.server
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import (
    FRONT,
    LENGTHS,
    REAR,
    camera,
    driving_set,
    vectors,
    write_json,
    write_table,
    write_v3,
)
from numbered_frames import numbered
from numbered_frames import numbers_of as shown
from PIL import Image

from drives.drive import open_drive
from drives.importers.__main__ import main
from drives.importers.base import import_recordings
from drives.importers.formats import RECORDING_FORMATS, recognised
from drives.importers.recording import Recording
from drives.importers.recordings.lerobot.frames import ParquetImages
from training.errors import BadInput


def numbers_of(recording: Recording) -> list[int]:
    return shown(recording.read(0, len(recording.actions)))


def recordings(root: Path, **options: object) -> list[Recording]:
    return RECORDING_FORMATS["lerobot"].recordings(root, **{"camera": "front", **options})


def test_each_episode_has_its_rows_and_exactly_its_frames(tmp_path: Path) -> None:
    root = driving_set(tmp_path / "set")
    assert recognised(root) == "lerobot"
    found = recordings(root)
    starts = np.cumsum([0, *LENGTHS])
    assert [len(recording.actions) for recording in found] == list(LENGTHS)
    for recording, start, stop in zip(found, starts[:-1], starts[1:], strict=True):
        assert numbers_of(recording) == list(range(start, stop))
        assert recording.fps == 10
        assert recording.action_names == ("steering", "throttle", "speed_mps", "state_throttle")
        ramp = np.arange(start, stop) / 100
        expected = np.stack([ramp - 0.5, ramp, 10 * ramp, 1 - ramp], axis=1)
        assert np.allclose(recording.actions, expected, atol=1e-6)
    assert numbers_of(recordings(root, camera=REAR)[1])[0] == 130
    assert [r.id for r in recordings(root, episodes="1:3")] == [r.id for r in found[1:]]


def test_a_column_that_holds_no_numbers_can_be_left_out(tmp_path: Path) -> None:
    root = driving_set(tmp_path / "set")
    file = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    states = table["observation.state"].to_pylist()
    states[35][0] = float("nan")
    place = table.column_names.index("observation.state")
    pq.write_table(table.set_column(place, "observation.state", [states]), file)
    with pytest.raises(BadInput, match=r"episode 1: speed_mps is nan at frame 5.*--columns"):
        recordings(root)
    found = recordings(root, columns="throttle,steering")
    assert [recording.action_names for recording in found] == [("throttle", "steering")] * 3
    assert np.allclose(found[0].actions[:, 1], np.arange(30) / 100 - 0.5)
    with pytest.raises(BadInput, match="no column 'brake'; give --columns of: steering, "):
        recordings(root, columns="brake")


def test_tasks_become_captions_that_are_cut_with_the_drive(tmp_path: Path) -> None:
    turns = np.zeros(sum(LENGTHS), int)
    turns[50:71] = 1
    root = driving_set(tmp_path / "set", task_of_row=turns, tasks=("drive on", "turn left"))
    paths = import_recordings(
        recordings(root, episodes="1:2"), tmp_path / "out", None, (0.5, 0, 0.5)
    )
    texts = [[(c.text, c.start, c.stop) for c in open_drive(path).captions] for path in paths]
    assert texts == [[("drive on", 0, 20)], [("turn left", 0, 21)]]  # 41 frames, cut at 20


def test_splits_of_the_dataset_are_kept(tmp_path: Path) -> None:
    root = driving_set(tmp_path / "set")
    values = json.loads((root / "meta/info.json").read_text())
    write_json(root / "meta/info.json", values | {"splits": {"train": "0:2", "test": "2:3"}})
    assert [r.split for r in recordings(root)] == ["train", "train", "test"]
    (path,) = import_recordings(recordings(root)[2:], tmp_path / "out")
    assert open_drive(path).split == "test"
    assert len(open_drive(path).actions) == LENGTHS[2]


def test_the_command_refuses_an_unclear_camera_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = driving_set(tmp_path / "set")
    with pytest.raises(SystemExit) as stopped:
        main(["lerobot", str(root), str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "--camera one of: front, rear" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    main(["lerobot", str(root), str(tmp_path / "out"), "--camera", "rear", "--num-workers", "0"])
    assert len(list((tmp_path / "out").glob("*/drive.json"))) == 9


L2D_AXES = "speed heading heading_error hp_loc_latitude hp_loc_longitude hp_loc_altitude"
L2D_AXES += " acceleration_x acceleration_y"


def test_l2d_gets_units_a_track_and_its_sentences(tmp_path: Path) -> None:
    """The features of yaak-ai/L2D-v3's meta/info.json."""
    count = 20
    pedals = ["gas_pedal_normalized", "brake_pedal_normalized", "steering_angle_normalized"]
    text = {"dtype": "string", "shape": [1], "names": None}
    view = camera(32, 64)
    features = {
        "observation.state.vehicle": {
            "dtype": "float32",
            "shape": [8],
            "names": {"axes": L2D_AXES.split()},
        },
        "observation.state.max_speed": text,
        "observation.state.waypoints": {
            "dtype": "float32",
            "shape": [10, 2],
            "names": ["way", "points"],
        },
        "observation.state.timestamp": {
            "dtype": "int64",
            "shape": [1],
            "names": {"axes": ["unix_epoc_timestamp"]},
        },
        "task.instructions": text,
        "action.continuous": {"dtype": "float32", "shape": [3], "names": {"axes": pedals}},
        "action.discrete": {
            "dtype": "int32",
            "shape": [2],
            "names": {"axes": ["gear", "turn_signal"]},
        },
        "observation.images.front_left": view,
        "observation.images.map": view,
    }
    vehicle = np.tile([36.0, 90, 1, 52.5, 13.4, 40, 0.5, -0.5], (count, 1))
    rows = {
        "observation.state.vehicle": vectors(vehicle),
        "task.instructions": ["Turn right."] * count,
        "action.continuous": vectors(np.tile([0.2, 0, -0.1], (count, 1))),
        "action.discrete": pa.array(np.tile([3, 1], (count, 1)).tolist(), pa.list_(pa.int32(), 2)),
    }
    frames = {key: numbered(count) for key in features if "images" in key}
    root = write_v3(tmp_path / "L2D", features, frames, rows, [count])
    (found,) = recordings(root, camera="front_left")
    row = dict(zip(found.action_names, found.actions[0], strict=True))
    assert row["speed_mps"] == pytest.approx(10)
    assert row["heading_rad"] == pytest.approx(np.pi / 2)
    assert row["throttle"] == pytest.approx(0.2)
    assert row["brake"] == 0
    assert row["turn_signal"] == 1
    assert "lat_deg" not in row
    assert found.track is not None
    assert found.track[-1].tolist() == pytest.approx([52.5, 13.4])
    assert found.meta["captions"] == [{"text": "Turn right.", "start": 0, "stop": count}]


def test_images_in_parquet_are_read(tmp_path: Path) -> None:
    pictures = numbered(20)
    cells = []
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "one.png")
        content = (tmp_path / "one.png").read_bytes()
        cells.append({"bytes": content, "path": f"frame-{index:06d}.png"})
    feature = {"dtype": "image", "shape": [32, 64, 3], "names": ["height", "width", "channels"]}
    features = {"action": {"dtype": "float32", "shape": [1], "names": None}, FRONT: feature}
    rows = {"action": pa.array(np.zeros(20, np.float32)), FRONT: cells}
    root = write_v3(tmp_path / "set", features, {}, rows, [8, 12])
    first, second = recordings(root)
    assert first.action_names == ("action",)
    assert numbers_of(second) == list(range(8, 20))


@pytest.mark.parametrize("group", [10, 60])
def test_images_of_other_episodes_are_left_where_they_are(
    group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = []
    for picture in numbered(60):
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "png")
        cells.append({"bytes": content.getvalue(), "path": "of.png"})
    columns = {FRONT: cells, "episode_index": np.repeat([0, 1, 2], 20)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=group)
    read, batches = [], pq.ParquetFile.iter_batches

    def counted(*args: Any, **options: Any) -> Iterator[Any]:
        for batch in batches(*args, **options):
            read.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    images = ParquetImages(tmp_path / "a.parquet", FRONT, 1)
    assert shown(images.read(5, 15)) == list(range(25, 35))
    assert read == ([10, 10] if group == 10 else [16, 16, 16])  # of 60: from 20 on, not after 35
    assert shown(images.read(0, 20)) == list(range(20, 40))
    assert shown(images.read(19, 30)) == [39]


def test_version_2_is_read(tmp_path: Path) -> None:
    new = driving_set(tmp_path / "new")
    old = tmp_path / "old"
    values = json.loads((new / "meta/info.json").read_text())
    values |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
    }
    write_json(old / "meta/info.json", values)
    entries = [{"episode_index": 0, "tasks": ["turn left"], "length": 30}]
    (old / "meta/episodes.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    (old / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "turn left"}) + "\n")
    steady = {"action": vectors(np.zeros((30, 2))), "observation.state": vectors(np.ones((30, 2)))}
    write_v3(tmp_path / "one", values["features"], {FRONT: numbered(30)}, steady, [30])
    moves = {
        "data/chunk-000/file-000.parquet": "data/chunk-000/episode_000000.parquet",
        f"videos/{FRONT}/chunk-000/file-000.mp4": f"videos/chunk-000/{FRONT}/episode_000000.mp4",
    }
    for source, goal in moves.items():
        (old / goal).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "one" / source, old / goal)
    (found,) = recordings(old)
    assert numbers_of(found) == list(range(30))
    assert found.meta["captions"] == [{"text": "turn left", "start": 0, "stop": 30}]


def damaged(root: Path, how: str) -> None:
    info_file = root / "meta/info.json"
    values = json.loads(info_file.read_text())
    episodes = root / "meta/episodes/chunk-000/file-000.parquet"
    if how == "version":
        write_json(info_file, values | {"codebase_version": "v1.6"})
    elif how == "json":
        info_file.write_text(info_file.read_text()[:200])
    elif how == "fps":
        write_json(info_file, values | {"fps": 0})
    elif how == "features":
        write_json(info_file, values | {"features": {"action": {"dtype": 3}}})
    elif how == "escape":
        write_json(info_file, values | {"data_path": "../../{chunk_index}.parquet"})
    elif how == "template":
        write_json(info_file, values | {"data_path": "{chunk_index.__class__.nothing}"})
    elif how == "episodes":
        episodes.write_bytes(episodes.read_bytes()[:-20])
    elif how == "video":
        (root / f"videos/{FRONT}/chunk-000/file-000.mp4").unlink()
    elif how == "tasks":
        write_table(root / "meta/tasks.parquet", {"task_index": [0]})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("version", "codebase_version is 'v1.6'"),
        ("json", "info.json: truncated"),
        ("fps", "fps is 0"),
        ("features", "features.action"),
        ("escape", "outside of the dataset"),
        ("template", "no template"),
        ("episodes", "cannot be read"),
        ("video", "file-000.mp4: missing"),
        ("tasks", "no column 'task'"),
    ],
)
def test_damage_is_named(tmp_path: Path, how: str, message: str) -> None:
    root = driving_set(tmp_path / "set")
    damaged(root, how)
    assert recognised(root) == "lerobot"
    with pytest.raises(BadInput, match=message):
        recordings(root)


def test_rows_and_frames_that_do_not_meet_are_refused(tmp_path: Path) -> None:
    root = driving_set(tmp_path / "set")
    file = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file).to_pydict()
    write_table(file, table | {f"videos/{FRONT}/from_timestamp": [0.05, 3.0, 7.1]})
    with pytest.raises(BadInput, match=r"frame 0 of the episode should show at 0\.05"):
        recordings(root)
    write_table(file, table | {"length": [30, 42, 25]})
    with pytest.raises(BadInput, match="episode 1 has 41 rows"):
        recordings(root)


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does, for one data set; counts what is loaded."""

    root: Path
    loaded: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        path, sha = self.path.partition("?")[0], "c0ffee" + "0" * 34
        files = [p for p in sorted(self.root.rglob("*")) if p.is_file()]
        names = {str(p.relative_to(self.root)): p for p in files}
        tag = ""
        if path == "/api/datasets/me/drives/revision/main":
            body = json.dumps({"id": "me/drives", "sha": sha, "siblings": []}).encode()
        elif path == f"/api/datasets/me/drives/tree/{sha}":
            sizes = {name: p.stat().st_size for name, p in names.items()}
            entries = [
                {"type": "file", "path": name, "size": size, "oid": f"{abs(hash(name)):040x}"}
                for name, size in sizes.items()
            ]
            body = json.dumps(entries).encode()
        elif path.removeprefix(f"/datasets/me/drives/resolve/{sha}/") in names:
            tag = path.removeprefix(f"/datasets/me/drives/resolve/{sha}/")
            body = names[tag].read_bytes()
            self.loaded.extend([tag] * with_body)
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", sha)
        if tag:
            self.send_header("ETag", f'"{abs(hash(tag)):040x}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *values: object) -> None:
        """Quiet."""


def test_a_set_of_the_hub_loads_only_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "root", driving_set(tmp_path / "set"), raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = huggingface_hub.constants
    address = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    try:
        (found,) = recordings(Path("hf://datasets/me/drives"), episodes="2:3")
        assert numbers_of(found) == list(range(71, 96))
        assert found.id == "drives-episode-000002"
        assert f"videos/{FRONT}/chunk-000/file-000.mp4" in Hub.loaded
        assert not any(REAR in name for name in Hub.loaded)
        with pytest.raises(BadInput, match=r"hf://datasets/me/nothing: cannot be loaded"):
            recordings(Path("hf://datasets/me/nothing"))
    finally:
        server.shutdown()
        server.server_close()
