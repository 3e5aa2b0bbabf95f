"""One reader of files and thousands of damaged files, in a process of its own.

python -m attacks.fuzzed NAME COUNT FOLDER     (tests on PYTHONPATH) prints the outcomes as JSON
"""

import faulthandler
import json
import pickle
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from commavq_files import make_segments, write_tar
from encoded_videos import smooth_frames
from onex_files import write_onex_v1, write_onex_v2
from PIL import Image

from drives.actions.table import read_table
from drives.drive import open_drive
from drives.importers.recordings import udacity
from drives.importers.tokens.commavq_segments import list_segments, read_segments
from drives.importers.tokens.onex_v1 import read_onex_v1
from drives.importers.tokens.onex_v2 import read_onex_v2
from drives.tokens.store import TokenSpec, TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.video.images import read_image
from drives.writing import write_drive
from training.checkpoints.folder import check_whole, read_state, read_weights, write_checkpoint
from training.errors import BadInput
from worldmodel.evaluation.challenges.submission import (
    Submitted,
    check_submission,
    write_submission,
)
from worldmodel.evaluation.challenges.top_tokens import top_tokens

TIMEOUT_S = 20  # for one input; the process then ends with the place where it hung
ADDED_MB = 1500  # address space beyond what the process has when it begins
COLUMNS = ("steering", "speed_mps")


@dataclass(frozen=True)
class Reader:
    """How a file is made and read.

    Attributes:
        make: writes what is needed to a folder, returns the file that is damaged.
        read: everything that is read of it.
        recorded: a sha256 covers it, so no other content may be accepted.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    recorded: bool


def mutations(whole: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Flipped bits, cuts, pieces repeated, missing, inserted, wild or zero; never `whole`."""
    rng = np.random.default_rng(seed)
    kinds = ("flip", "flips", "cut", "repeat", "drop", "insert", "wild", "zeros")
    made = 0
    while made < count:
        kind = kinds[made % len(kinds)]
        at = int(rng.integers(len(whole)))
        length = int(rng.integers(1, max(2, min(600, len(whole) // 4))))
        data = bytearray(whole)
        if kind in ("flip", "flips"):
            for bit in rng.integers(8 * len(whole), size=1 if kind == "flip" else 8):
                data[bit // 8] ^= 1 << int(bit % 8)
        elif kind == "cut":
            del data[at:]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        elif kind == "drop":
            del data[at : at + length]
        elif kind == "insert":
            data[at:at] = rng.bytes(length)
        else:
            piece = rng.bytes(length) if kind == "wild" else bytes(length)
            data[at : at + length] = piece[: len(data) - at]
        if bytes(data) != whole:
            yield kind, bytes(data)
            made += 1


def drive_folder(folder: Path, images: str = "") -> Path:
    frames = smooth_frames(12, 32, 32)
    actions = np.stack([np.sin(np.arange(12)), np.arange(12) / 3], 1).astype(np.float32)
    meta = {"fps": 10, "split": "train", "source": "a", "captions": [{"text": "a turn"}]}
    write_drive(folder / "a", frames, actions, COLUMNS, meta)
    if images:
        (folder / "a/video.mp4").unlink()
        (folder / "a/frames").mkdir()
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"a/frames/{index:02d}.{images}")
    return folder / "a"


def drive_json(folder: Path) -> Path:
    return drive_folder(folder, "png") / "drive.json"


def read_drive(file: Path) -> Any:
    drive = open_drive(file.parent)
    return drive.meta, drive.fps, drive.split, drive.captions, drive.actions


def video_file(recorded: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = drive_folder(folder)
        if not recorded:
            meta = json.loads((path / "drive.json").read_text())
            del meta["video_sha256"]
            (path / "drive.json").write_text(json.dumps(meta))
        return path / "video.mp4"

    return make


def read_frames(file: Path) -> Any:
    return list(open_drive(file.parent).frames())


def parquet(folder: Path) -> Path:
    columns = {name: np.linspace(0, 1, 200, dtype=np.float32) for name in COLUMNS}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "actions.parquet")
    return folder / "actions.parquet"


def image(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        Image.fromarray(smooth_frames(1, 48, 64)[0]).save(folder / f"a.{suffix}")
        return folder / f"a.{suffix}"

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


def read_udacity(file: Path) -> Any:
    found = udacity.FORMAT.recordings(file.parent)
    return [(r.id, r.source, r.fps, r.actions) for r in found]


def store_file(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        spec = TokenSpec((1, 4, 4), 64, 10, 1, (64, 64), "a tokenizer")
        writer = TokenStoreWriter(folder, spec, list(COLUMNS))
        rng = np.random.default_rng(0)
        for split in ("train", "val"):
            tokens, actions = rng.integers(0, 64, (20, 4, 4)), rng.random((20, 2))
            writer.write(split, split, tokens, actions.astype(np.float32), {"source": "there"})
        return folder / name

    return make


def read_store(file: Path) -> Any:
    store = TokenStore(file.parent)
    drives = [d for split in ("train", "val") for d in store.drives(split)]
    return store.spec, [(d.id, d.split, d.tokens, d.actions, d.captions) for d in drives]


def checkpoint_file(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        weights = {"a": torch.arange(20.0), "b.c": torch.ones(3, 4)}
        manifest = {"kind": "test", "step": 3, "config": {"a": [1, 2.5, "x"]}}
        write_checkpoint(folder / "step-3", weights, manifest, {"global_step": 3})
        return folder / "step-3" / name

    return make


def read_checkpoint(file: Path) -> Any:
    manifest = check_whole(file.parent)
    return manifest, read_weights(file.parent), read_state(file.parent)


def read_v1(file: Path) -> Any:
    folder = file.parent if file.parent.name != "actions" else file.parent.parent
    found = read_onex_v1(folder)
    return found.spec, found.tokens, found.segments(), found.actions


def read_v2(file: Path) -> Any:
    settings, shards = read_onex_v2(file.parent)
    return settings, [(s.tokens, s.states, s.segments()) for s in shards]


def submission(folder: Path) -> Path:
    logits = torch.linspace(0, 1, 3 * 2 * 2 * 20).view(3, 2, 2, 20)
    who = Submitted("m", "t", ("a",), "e", "i", "c")
    write_submission(folder / "a", [top_tokens(logits.log_softmax(-1), 5)], who)
    return folder / "a/0.npz"


def read_submission(file: Path) -> Any:
    return check_submission(file.parent, 1, (3, 2, 2), 20, 5)


READERS = {
    "drive.json": Reader(drive_json, read_drive, False),
    "actions.csv, recorded": Reader(
        lambda folder: drive_folder(folder, "png") / "actions.csv", read_drive, True
    ),
    "actions.csv, alone": Reader(
        lambda folder: drive_folder(folder, "png") / "actions.csv", lambda f: read_table(f), False
    ),
    "actions.parquet": Reader(parquet, lambda f: read_table(f), False),
    "video.mp4, recorded": Reader(video_file(True), read_frames, True),
    "video.mp4, alone": Reader(video_file(False), read_frames, False),
    "frame.png": Reader(image("png"), read_image, False),
    "frame.jpg": Reader(image("jpg"), read_image, False),
    "segments.tar": Reader(archive("a.tar"), read_tokens, False),
    "segments.tar.gz": Reader(archive("a.tar.gz"), read_tokens, True),
    "token.npy": Reader(token_file, read_tokens, False),
    "driving_log.csv": Reader(udacity_log, read_udacity, False),
    "1X v1.1, metadata.json": Reader(
        lambda folder: write_onex_v1(folder / "a") / "metadata.json", read_v1, False
    ),
    "1X v1.1, joint_pos.bin": Reader(
        lambda folder: write_onex_v1(folder / "a") / "actions/joint_pos.bin", read_v1, False
    ),
    "1X v2.0, metadata_0.json": Reader(
        lambda folder: write_onex_v2(folder / "a") / "metadata_0.json", read_v2, False
    ),
    "1X v2.0, segment_idx_0.bin": Reader(
        lambda folder: write_onex_v2(folder / "a") / "segment_idx_0.bin", read_v2, False
    ),
    "submission, 0.npz": Reader(submission, read_submission, False),
    "store, manifest.json": Reader(store_file("manifest.json"), read_store, True),
    "store, drive.arrow": Reader(store_file("train.arrow"), read_store, True),
    "checkpoint, manifest.json": Reader(checkpoint_file("manifest.json"), read_checkpoint, True),
    "checkpoint, weights": Reader(checkpoint_file("weights.safetensors"), read_checkpoint, True),
    "checkpoint, state": Reader(checkpoint_file("state.pt"), read_checkpoint, True),
}


def plain(content: Any) -> bytes:
    """Equal for equal content."""
    if isinstance(content, np.ndarray | torch.Tensor):
        array = np.asarray(content)
        return f"{array.dtype}{array.shape}".encode() + array.tobytes()
    if isinstance(content, dict):
        return b"{" + b",".join(plain(k) + b":" + plain(v) for k, v in content.items()) + b"}"
    if isinstance(content, list | tuple):
        return b"[" + b",".join(map(plain, content)) + b"]"
    return pickle.dumps(repr(content))


def attack(name: str, count: int, folder: Path) -> dict[str, Any]:
    """Outcomes by name, and what should not have come."""
    reader = READERS[name]
    file = reader.make(folder)
    whole = file.read_bytes()
    right = plain(reader.read(file))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDED_MB * 2**20, resource.RLIM_INFINITY))
    found: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    fewer = 0
    for index, (kind, data) in enumerate(mutations(whole, count, seed=7)):
        (folder / "last.bin").write_bytes(data)  # what a crash or a hang was made by
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        faulthandler.dump_traceback_later(TIMEOUT_S, exit=True)
        try:
            content = reader.read(file)
            same = plain(content) == right
            found["same" if same else "other"] += 1
            fewer += name.startswith("segments") and len(content[0]) < 3
        except BadInput as error:
            names_it = file.name in str(error) or str(file.parent) in str(error)
            found["refused" if names_it else "refused, not named"] += 1
            if not names_it:
                wrong.setdefault("not named", f"{index} {kind}: {error}")
        except Exception as error:  # what this looks for
            found["escaped"] += 1
            wrong.setdefault(type(error).__name__, f"{index} {kind}: {error}"[:300])
        finally:
            faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"outcomes": found, "wrong": wrong, "fewer": fewer, "bytes": len(whole), "peak_mb": peak}


if __name__ == "__main__":
    print(json.dumps(attack(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
