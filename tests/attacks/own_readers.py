"""Readers of our own files, each with a file that it reads: drives, stores, checkpoints."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from codec_files import make_checkpoint
from encoded_videos import smooth_frames
from PIL import Image

from drives.actions.table import read_table
from drives.drive import open_drive
from drives.tokens.store import TokenSpec, TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.video.images import read_image
from drives.writing import write_drive
from training.checkpoints.folder import check_whole, read_state, read_weights, write_checkpoint
from training.errors import BadInput
from worldmodel.codec.container import CodedSegment, ContainerWriter, Header, SegmentAbout
from worldmodel.codec.packing.packed import open_packed, pack
from worldmodel.codec.reading import examine, segments_of
from worldmodel.evaluation.challenges.submission import (
    Submitted,
    check_submission,
    write_submission,
)
from worldmodel.evaluation.challenges.top_tokens import top_tokens

COUNT, COUNT_SLOW, COUNT_SLOWEST = 4600, 1000, 300  # what 1 to 100 ms each allow
COLUMNS = ("steering", "speed_mps")


@dataclass(frozen=True)
class Reader:
    """How a file is made and read.

    Attributes:
        make: writes what is needed to a folder, returns the file that is damaged.
        read: everything that is read of it.
        recorded: a sha256 covers it, so no other content may be accepted.
        count: of inputs; fewer where reading takes long.
        named: what messages call it, where that is neither the file nor its folder.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    recorded: bool
    count: int = COUNT
    named: str = ""


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


def submission(folder: Path) -> Path:
    logits = torch.linspace(0, 1, 3 * 2 * 2 * 20).view(3, 2, 2, 20)
    who = Submitted("m", "t", ("a",), "e", "i", "c")
    write_submission(folder / "a", [top_tokens(logits.log_softmax(-1), 5)], who)
    return folder / "a/0.npz"


def read_submission(file: Path) -> Any:
    return check_submission(file.parent, 1, (3, 2, 2), 20, 5)


def codec_container(folder: Path) -> Path:
    """Three segments with a header."""
    header = Header(
        schema=1,
        source={"kind": "store"},
        spec={},
        action_names=COLUMNS,
        predictors=({"name": "unigram"},),
        arithmetic="exact 1",
        segment_steps=4,
        parallel=2,
        coder="test",
    )
    path = folder / "a.codec"
    with path.open("wb") as file:
        writer = ContainerWriter(file, header)
        for number in range(3):
            about = SegmentAbout(
                drive="a", split="test", first=4 * number, steps=4, tokens="", bits=1.0
            )
            writer.add(CodedSegment(about, bytes(range(200)), bytes(20)))
        writer.end()
    return path


def read_container(path: Path) -> dict[int, CodedSegment]:
    if (found := examine(path)).damage:
        raise BadInput(f"{path}: {found.damage[0]}")
    return dict(segments_of(path))


def read_recovered(path: Path) -> str:
    """Whole segments of a damaged container: none may hold anything else than was written."""
    for number, segment in segments_of(path):
        assert (segment.about.first, segment.about.steps) == (4 * number, 4)
        assert (segment.code, segment.actions) == (bytes(range(200)), bytes(20))
    return "as written"


def packed_model(folder: Path) -> Path:
    pack(make_checkpoint(folder / "ckpt"), folder / "a.model", 4)
    return folder / "a.model"


OWN_READERS = {
    "codec, container": Reader(codec_container, read_container, True),
    "codec, recovered": Reader(codec_container, read_recovered, True),
    "codec, model": Reader(packed_model, lambda f: open_packed(f).network.state_dict(), True),
    "drive.json": Reader(drive_json, read_drive, False),
    "actions.csv, recorded": Reader(
        lambda folder: drive_folder(folder, "png") / "actions.csv", read_drive, True
    ),
    "actions.csv, alone": Reader(
        lambda folder: drive_folder(folder, "png") / "actions.csv", lambda f: read_table(f), False
    ),
    "actions.parquet": Reader(parquet, lambda f: read_table(f), False),
    "video.mp4, recorded": Reader(video_file(True), read_frames, True, COUNT_SLOW),
    "video.mp4, alone": Reader(video_file(False), read_frames, False, COUNT_SLOW),
    "frame.png": Reader(image("png"), read_image, False),
    "frame.jpg": Reader(image("jpg"), read_image, False),
    "submission, 0.npz": Reader(submission, read_submission, False),
    "store, manifest.json": Reader(store_file("manifest.json"), read_store, True),
    "store, drive.arrow": Reader(store_file("train.arrow"), read_store, True),
    "checkpoint, manifest.json": Reader(checkpoint_file("manifest.json"), read_checkpoint, True),
    "checkpoint, weights": Reader(checkpoint_file("weights.safetensors"), read_checkpoint, True),
    "checkpoint, state": Reader(checkpoint_file("state.pt"), read_checkpoint, True),
}
