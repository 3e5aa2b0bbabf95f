"""Drives -> LeRobotDataset -> drives: nothing is lost, and lerobot's own rules hold."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from encoded_videos import content, smooth_frames
from numbered import write_numbered
from PIL import Image

from drives import video
from drives.drive import open_drive
from drives.exporters.__main__ import main
from drives.folder import open_folders
from drives.importers.__main__ import main as import_main
from drives.importers.formats import RECORDING_FORMATS
from drives.video.joining import VideoJoiner, can_copy
from drives.writing import write_drive
from training.errors import BadInput

NAMES = ("steering", "speed_mps")
KEY = "observation.images.front"


def drive(root: Path, name: str, count: int, split: str, captions: list | None = None) -> Path:
    rng = np.random.default_rng(count)
    actions = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    meta = {"fps": 10, "split": split, "source": f"made {name}", "licence": "MIT"}
    meta |= {"captions": captions} if captions else {}
    write_drive(root / name, smooth_frames(count, 48, 64), actions, NAMES, meta)
    return root / name


def three_drives(root: Path) -> Path:
    """Two recordings; the first is cut into train and test."""
    turns = [
        {"text": "go on", "start": 0, "stop": 9},
        {"text": "turn left", "start": 9, "stop": 20},
    ]
    drive(root, "a-train", 23, "train", turns)
    drive(root, "a-test", 17, "test")
    drive(root, "b-train", 31, "train", [{"text": "go on", "start": 0, "stop": 31}])
    return root


def pixels(path: Path) -> np.ndarray:
    return np.stack(list(open_drive(path).frames()))


def test_a_round_trip_gives_the_same_drives(tmp_path: Path) -> None:
    drives, out, back = three_drives(tmp_path / "drives"), tmp_path / "set", tmp_path / "back"
    main(["lerobot", str(drives), str(out)])
    import_main(["lerobot", str(out), str(back), "--num-workers", "0"])
    originals = open_folders(drives)
    returned = {d.id: d for d in open_folders(back)}
    assert sorted(returned) == [d.id for d in originals]
    for original in originals:
        other = returned[original.id]
        assert np.array_equal(other.actions, original.actions)
        assert (other.action_names, other.fps) == (original.action_names, original.fps)
        assert other.captions == original.captions
        assert (other.split, other.meta["licence"]) == (original.split, "MIT")
        assert other.meta["source"] == original.meta["source"]
        # The import encodes once more: the frames differ by what that costs.
        error = np.abs(pixels(other.path).astype(int) - pixels(original.path)).mean()
        assert error < 3


def test_gaps_come_back_and_a_varying_rate_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, folders = tmp_path / "drives", [tmp_path / "drives" / name for name in "abc"]
    meta = {"fps": 10, "split": "train", "dropped_frames": [[4, 2], [9, 1]]}
    write_drive(folders[0], smooth_frames(20, 48, 64), np.zeros((20, 2)), NAMES, meta)
    times = np.arange(20) * 100
    for folder, late in zip(folders[1:], ((times > 1200) * 300, times**2 // 1000), strict=True):
        write_numbered(folder / "video.mp4", smooth_frames(20, 48, 64), 10, (times + late).tolist())
        (folder / "drive.json").write_text('{"fps": 10, "split": "train"}')
        table = "\n".join([",".join(NAMES), *["0,0"] * 20])
        (folder / "actions.csv").write_text(table)
    with pytest.raises(SystemExit) as stopped:
        main(["lerobot", str(root), str(tmp_path / "set")])
    assert stopped.value.code == 2
    assert f"{folders[2]}: its rate varies: steps from 0.1" in capsys.readouterr().err
    shutil.rmtree(folders[2])
    main(["lerobot", str(root), str(tmp_path / "set")])
    words = ["--split", "1", "0", "0", "--num-workers", "0"]
    import_main(["lerobot", str(tmp_path / "set"), str(tmp_path / "back"), *words])
    found = [d.drops for d in open_folders(tmp_path / "back")]
    assert found == [d.drops for d in open_folders(root)] == [[(4, 2), (9, 1)], [(12, 3)]]
    file = tmp_path / "set/meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    place = table.column_names.index("dropped_frames")
    for spoilt in ("[[1", '[["a", 1]]'):
        pq.write_table(table.set_column(place, "dropped_frames", [[spoilt, "[]"]]), file)
        with pytest.raises(BadInput, match=r"episode 0: dropped_frames holds"):
            RECORDING_FORMATS["lerobot"].recordings(tmp_path / "set")


def test_copied_videos_decode_to_the_same_bits(tmp_path: Path) -> None:
    drives, out = three_drives(tmp_path / "drives"), tmp_path / "set"
    main(["lerobot", str(drives), str(out)])
    files = sorted(out.glob(f"videos/{KEY}/*/*.mp4"))
    assert len(files) == 1  # all three were coded alike
    joined = list(video.read_frames(files[0]))
    order = [pixels(drives / name) for name in ("a-train", "b-train", "a-test")]
    assert np.array_equal(np.stack(joined), np.concatenate(order))
    with av.open(str(files[0])) as container:  # lerobot asks for frames by their absolute time
        stream = container.streams.video[0]
        times = [float(frame.pts * stream.time_base) for frame in container.decode(stream)]
    assert np.allclose(times, np.arange(len(joined)) / 10, atol=1e-6)


def test_the_tables_are_as_lerobot_writes_them(tmp_path: Path) -> None:
    drives, out = three_drives(tmp_path / "drives"), tmp_path / "set"
    main(["lerobot", str(drives), str(out), "--robot-type", "kart"])
    info = json.loads((out / "meta/info.json").read_text())
    assert (info["codebase_version"], info["robot_type"], info["fps"]) == ("v3.0", "kart", 10)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 71, 3)
    assert info["splits"] == {"train": "0:2", "test": "2:3"}
    episodes = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert episodes["length"] == [23, 31, 17]
    assert episodes["dataset_from_index"] == [0, 23, 54]
    assert episodes["dataset_to_index"] == [23, 54, 71]
    assert episodes[f"videos/{KEY}/from_timestamp"] == pytest.approx([0, 2.3, 5.4])
    assert episodes[f"videos/{KEY}/to_timestamp"] == pytest.approx([2.3, 5.4, 7.1])
    assert episodes["tasks"][0] == ["go on", "turn left", ""]
    rows = pq.read_table(out / "data/chunk-000/file-000.parquet").to_pydict()
    assert rows["index"] == list(range(71))
    assert rows["task_index"][:23] == [0] * 9 + [1] * 11 + [2] * 3
    # lerobot takes a sentence from pandas' index, by its place.
    tasks = pq.read_table(out / "meta/tasks.parquet").to_pandas()
    assert [tasks.iloc[i].name for i in range(3)] == ["go on", "turn left", ""]
    assert tasks.index.name == "task"
    stats = json.loads((out / "meta/stats.json").read_text())
    actions = np.concatenate([d.actions for d in open_folders(drives)])
    assert stats["action"]["mean"] == pytest.approx(actions.mean(axis=0).tolist(), abs=1e-5)
    assert stats["action"]["q90"] == pytest.approx(np.quantile(actions, 0.9, axis=0), abs=1e-5)
    assert stats["action"]["count"] == [71]
    assert np.array(stats[KEY]["mean"]).shape == (3, 1, 1)
    frames = np.concatenate([pixels(d.path) for d in open_folders(drives)]) / 255
    mean = np.array(stats[KEY]["mean"]).ravel()
    assert np.allclose(mean, frames.mean(axis=(0, 1, 2)), atol=0.02)


def test_images_and_drives_without_actions_are_encoded(tmp_path: Path) -> None:
    folder = tmp_path / "drives/a"
    (folder / "frames").mkdir(parents=True)
    for index, frame in enumerate(smooth_frames(8, 48, 64)):
        Image.fromarray(frame).save(folder / f"frames/{index:03d}.png")
    (folder / "drive.json").write_text(json.dumps({"fps": 12.5, "split": "train"}))
    main(["lerobot", str(tmp_path / "drives"), str(tmp_path / "set"), "--camera", "top"])
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert "action" not in info["features"]
    assert info["fps"] == 12.5
    options = ["--split", "1", "0", "0", "--num-workers", "0"]
    import_main(["lerobot", str(tmp_path / "set"), str(tmp_path / "back"), *options])
    assert pixels(tmp_path / "back/a-train").shape == (8, 48, 64, 3)
    assert not list((tmp_path / "set").glob("encoded*"))


def test_a_name_in_the_dataset_does_not_lead_out_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive(tmp_path / "drives", "a", 30, "train")
    main(["lerobot", str(tmp_path / "drives"), str(tmp_path / "set")])
    file = tmp_path / "set/meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    place = table.column_names.index("drive")
    pq.write_table(table.set_column(place, "drive", [["../escaped"]]), file)
    with pytest.raises(SystemExit) as stopped:
        import_main(["lerobot", str(tmp_path / "set"), str(tmp_path / "deep/out")])
    assert stopped.value.code == 2
    assert "../escaped" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*escaped*"))


def test_drives_that_do_not_go_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive(tmp_path / "drives", "a", 5, "train")
    meta = {"fps": 20, "split": "train"}
    write_drive(tmp_path / "drives/b", smooth_frames(5, 48, 64), np.zeros((5, 2)), NAMES, meta)
    with pytest.raises(SystemExit) as stopped:
        main(["lerobot", str(tmp_path / "drives"), str(tmp_path / "set")])
    assert stopped.value.code == 2
    assert "20 frames per second" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
    (tmp_path / "set").mkdir()
    with pytest.raises(SystemExit):
        main(["lerobot", str(tmp_path / "drives"), str(tmp_path / "set")])
    assert "exists already" in capsys.readouterr().err


def encoded(path: Path, frames: np.ndarray, **options: str) -> Path:
    """H.264 as cameras write it: with frames that need later ones."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"bf": "3", "g": "12", "b-adapt": "0", **options}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_that_need_later_ones_are_joined_in_order(tmp_path: Path) -> None:
    frames = smooth_frames(40, 48, 64)
    parts = [encoded(tmp_path / "a.mp4", frames[:25]), encoded(tmp_path / "b.mp4", frames[25:])]
    other = encoded(tmp_path / "c.mp4", frames[:9], crf="40", refs="1")
    with VideoJoiner(lambda number: tmp_path / f"out{number}.mp4", 10, 1 << 30) as joiner:
        places = [joiner.add(path) for path in [*parts, other]]
    assert all(can_copy(path, 10) for path in parts)
    assert places == [(0, 0.0), (0, 2.5), (1, 0.0)]
    joined = np.stack(list(video.read_frames(tmp_path / "out0.mp4")))
    apart = np.concatenate([list(video.read_frames(path)) for path in parts])
    assert np.array_equal(joined, apart)
    times = video.times_s(tmp_path / "out0.mp4")
    assert times is not None
    assert np.allclose(times, np.arange(40) / 10)
    assert content(tmp_path / "out1.mp4") == content(other)


def test_a_full_file_is_followed_by_the_next(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.mp4", smooth_frames(9, 48, 64))
    size = path.stat().st_size
    with VideoJoiner(lambda number: tmp_path / f"out{number}.mp4", 10, 2 * size) as joiner:
        places = [joiner.add(path) for _ in range(5)]
    assert places == [(0, 0.0), (0, 0.9), (1, 0.0), (1, 0.9), (2, 0.0)]


def test_what_cannot_be_copied_is_known(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.mp4", smooth_frames(9, 48, 64))
    assert can_copy(path, 10)
    assert not can_copy(path, 20)  # it plays at half of that
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(BadInput):
        can_copy(path, 10)
