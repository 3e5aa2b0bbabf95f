"""Files of foreign formats to damage, and all that their readers read of them."""

import importlib.util
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
from comma2k19_files import write_segment
from commavq_files import make_segments, write_tar
from dmc_files import write_dmc
from encoded_videos import smooth_frames
from lerobot_files import FRONT, vectors, write_v3
from lerobot_files import camera as camera_feature
from PIL import Image
from ros_bags import camera, odometry, write_bag

from drives.importers.formats import RECORDING_FORMATS
from drives.importers.tokens.commavq_segments import list_segments, read_segments
from drives.importers.tokens.onex_v1 import read_onex_v1
from drives.importers.tokens.onex_v2 import read_onex_v2
from drives.video import write_video

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("DASHCAST_SHARED", ROOT.parent / "shared")) / "data"


def writers_of(test: str) -> ModuleType:
    """A test's own functions that write files of a format."""
    file = Path(__file__).parents[1] / f"drives/importers/{test}.py"
    spec = importlib.util.spec_from_file_location(f"writers_of_{test}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nuscenes_table(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        root = writers_of("test_posed").nuscenes(folder / "set", num_scenes=1, count=24)
        return root / f"v1.0-mini/{name}.json"

    return make


def nuplan_database(folder: Path) -> Path:
    return writers_of("test_posed").nuplan(folder / "set", seconds=4)


def logged(writer: str, name: str, **settings: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        return getattr(writers_of("test_steering"), writer)(folder / "car", **settings) / name

    return make


def listed(name: str) -> Callable[[Path], Path]:
    return lambda folder: writers_of("test_opendv").opendv(folder / "set") / name


def table_of(kind: str, suffix: str) -> Callable[[Path], Path]:
    """A video or a folder of frames with its table."""

    def make(folder: Path) -> Path:
        pictures, rows = smooth_frames(20, 32, 32), np.linspace(0, 1, 20)
        if kind == "videos":
            write_video(folder / "drive.mp4", pictures, 10)
        for index, picture in enumerate(pictures if kind == "frames" else ()):
            (folder / "drive").mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / f"drive/{index:03d}.png")
        columns = pyarrow.table({"time_s": np.arange(20) / 10, "steering": rows, "speed_mph": rows})
        write = pyarrow.csv.write_csv if suffix == "csv" else pyarrow.parquet.write_table
        write(columns, folder / f"drive.{suffix}")
        return folder / f"drive.{suffix}"

    return make


def archive(name: str) -> Callable[[Path], Path]:
    return lambda folder: write_tar(folder / name, make_segments(3, 4))


def token_file(folder: Path) -> Path:
    np.save(folder / "a.token.npy", make_segments(1, 4)["segment-00"]["token.npy"])
    return folder / "a.token.npy"


def read_tokens(file: Path) -> Any:
    names = list_segments([file])
    return names, [(s.name, s.tokens, s.poses) for s in read_segments([file])]


def udacity_log(folder: Path) -> Path:
    (folder / "IMG").mkdir()
    rows = []
    for index in range(30):
        name = f"center_2016_12_01_13_30_{index // 10:02d}_{index % 10}00.jpg"
        Image.fromarray(smooth_frames(1, 8, 8)[0]).save(folder / "IMG" / name)
        rows.append(f"IMG/{name},l,r,{index / 100},0.5,0,{index}\n")
    (folder / "driving_log.csv").write_text("".join(rows))
    return folder / "driving_log.csv"


def recorded(name: str, up: int = 1, frames: bool = True, **options: Any) -> Callable[..., Any]:
    """Everything that a format finds `up` folders above a file; each frame has its row."""

    def read(file: Path) -> Any:
        found = []
        root = file if up == 0 else file.parents[up - 1]
        for r in RECORDING_FORMATS[name].recordings(root, **options):
            pictures = list(r.read(0, len(r.actions))) if frames else []
            assert not frames or len(pictures) == len(r.actions), "a window of another length"
            assert np.isfinite(r.actions).all(), "an action that is no number"
            found.append((r.id, r.fps, r.action_names, r.actions, r.track, pictures))
        return found

    return read


def comma_file(name: str) -> Callable[[Path], Path]:
    return lambda folder: write_segment(folder / "a|b/40", 100.0, 20) / name


def comma_zip(folder: Path) -> Path:
    segment = write_segment(folder / "plain/a|b/40", 100.0, 20)
    with zipfile.ZipFile(folder / "chunk.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(segment.rglob("*")):
            packed.write(file, file.relative_to(folder / "plain"))
    shutil.rmtree(folder / "plain")
    return folder / "chunk.zip"


def bag(kind: str) -> Callable[[Path], Path]:
    return lambda folder: write_bag(folder, kind, lambda t: [*camera(t, 25), *odometry(t, 2.5)])


def bag_metadata(folder: Path) -> Path:
    return bag("folder")(folder) / "metadata.yaml"


def episodes(latents: str = "") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_dmc(folder / "a.hdf5", (4, 4), latents=latents)
        return folder / "a.hdf5"

    return make


def lerobot_file(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        rows = {"action": vectors(np.linspace(0, 1, 24, dtype=np.float32).reshape(12, 2))}
        kind = {"dtype": "float32", "shape": [2], "names": ["steering", "throttle"]}
        features = {"action": kind, FRONT: camera_feature(32, 32)}
        write_v3(folder / "set", features, {FRONT: smooth_frames(12, 32, 32)}, rows, (5, 7))
        return folder / "set" / name

    return make


def nanogpt(folder: Path) -> Path:
    frames = make_segments(1, 8)["segment-00"]["token.npy"].reshape(8, 128)
    stream = np.concatenate([np.full((8, 1), 1024), frames], 1).astype(np.uint16)
    np.append(stream.reshape(-1), np.uint16(1025)).tofile(folder / "train.bin")
    return folder / "train.bin"


def npy_tokens(folder: Path) -> Path:
    np.save(folder / "a.npy", np.random.default_rng(0).integers(0, 64, (6, 4, 4)))
    return folder / "a.npy"


def read_v1(file: Path) -> Any:
    folder = file.parent if file.parent.name != "actions" else file.parent.parent
    found = read_onex_v1(folder)
    return found.spec, found.tokens, found.segments(), found.actions


def read_v2(file: Path) -> Any:
    settings, shards = read_onex_v2(file.parent)
    return settings, [(s.tokens, s.states, s.segments()) for s in shards]


def real(place: str) -> Callable[[Path], Path]:
    """A copy of a real recording's file; of a tub, all of it."""

    def make(folder: Path) -> Path:
        (source,) = SHARED.glob(place)
        if source.name.endswith(".tar.gz"):
            with tarfile.open(source) as packed:
                packed.extractall(folder, filter="data")
            return folder / "tub/catalog_0.catalog"
        shutil.copyfile(source, folder / source.name)
        return folder / source.name

    return make
