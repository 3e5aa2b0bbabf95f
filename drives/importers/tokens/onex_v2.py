"""1X's robot recordings, version 2.0: clips as tokens of Cosmos DV8x8x8, in shards.

    metadata.json                          num_shards, and perhaps num_images, hz
    metadata_K.json                        shard_num_frames: F
    video_K.bin                            int32 [ceil(F / 17) 3 32 32]; the last may be partial
    states_K.bin                           float32 [F 25]
    segment_idx_K.bin                      int32 [F]

In a training set they are in metadata/, videos/, robot_states/ and segment_indices/. A clip is 17
frames: the first grid is its first frame, the two others are 8 frames each. A clip whose first and
last frame are of different recordings, and a partial one at the end, are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from pydantic import NonNegativeInt, PositiveFloat

from drives.importers.tokens.onex_sets import Count, find_sets, read_settings, split_of
from drives.importers.tokens.raw_array import check_finite, raw_array, runs_of
from drives.importers.tokens.token_import import content_key, import_tokens
from drives.tokens.spec import TokenSpec, check_tokens
from drives.tokens.store import TokenDrive, TokenStore
from drives.tokens.writer import NewDrive
from training.errors import BadInput

CLIP_FRAMES = 17
GRID, VOCAB, PIXELS_PER_TOKEN = (3, 32, 32), 64_000, 8
JOINTS = (
    *("hip_yaw", "hip_roll", "hip_pitch", "knee_pitch", "ankle_roll", "ankle_pitch"),
    *(
        f"{side}_{joint}"
        for side in ("left", "right")
        for joint in (
            *("shoulder_pitch", "shoulder_roll", "shoulder_yaw"),
            *("elbow_pitch", "elbow_yaw", "wrist_pitch", "wrist_roll"),
        )
    ),
    "neck_pitch",
)
STATE_NAMES = (*JOINTS, "left_hand_closure", "right_hand_closure", "linear_mps", "angular_rad_s")
FOLDERS = {
    "video": "videos",
    "states": "robot_states",
    "segment_idx": "segment_indices",
    "metadata": "metadata",
}


@dataclass(frozen=True)
class OnexShards:
    """What is read of the `metadata.json` of a set."""

    num_shards: Count
    num_images: Count | None = None
    hz: PositiveFloat = 30


@dataclass(frozen=True)
class OnexShardMetadata:
    """What is read of a `metadata_K.json`."""

    shard_num_frames: Count
    shard_ind: NonNegativeInt | None = None


@dataclass(frozen=True)
class OnexShard:
    """A shard as published, memory-mapped.

    Attributes:
        index: its number K.
        files: of video, states and segment ids.
    """

    index: int
    files: dict[str, Path] = field(repr=False)
    tokens: Int[np.ndarray, "clip 3 32 32"] = field(repr=False)
    states: Float[np.ndarray, "frame 25"] = field(repr=False)
    segment_ids: Int[np.ndarray, " frame"] = field(repr=False)

    def segments(self) -> list[tuple[int, int, int]]:
        """(id, first clip, clip after the last) of every recording that holds a whole clip."""
        found = []
        for number, start, stop in runs_of(self.files["segment_idx"], self.segment_ids):
            # Whole clips within the run: clips do not begin anew with a recording.
            first, last = -(-start // CLIP_FRAMES), stop // CLIP_FRAMES
            if first < last:
                found.append((number, first, last))
        return found


def read_onex_v2(folder: Path) -> tuple[OnexShards, list[OnexShard]]:
    """The shards of a set, all of them checked.

    Raises:
        BadInput: a file is missing or of another size than the metadata says, tokens outside of
            the vocabulary, states that are not finite, or an id that returns.
    """
    said = read_settings(OnexShards, folder / "metadata.json")
    shards = [_read_shard(folder, index) for index in range(said.num_shards)]
    total = sum(len(shard.segment_ids) for shard in shards)
    if said.num_images not in (None, total):
        raise BadInput(
            f"{folder / 'metadata.json'}: num_images={said.num_images}, but its "
            f"{said.num_shards} shards hold {total} frames; copy the whole set"
        )
    return said, shards


def find_onex_v2(root: Path) -> list[Path]:
    """The files of a set, or of the sets one folder below.

    Raises:
        BadInput: there are none.
    """
    found = []
    for folder in _sets(root):
        said = read_settings(OnexShards, folder / "metadata.json")
        found.append(folder / "metadata.json")
        for index in range(said.num_shards):
            found += _files(folder, index).values()
    return found


def plan_onex_v2(root: Path) -> tuple[TokenSpec, tuple[str, ...]]:
    """Spec and action columns of the store to be.

    Raises:
        BadInput: there is none, or the sets have different rates.
    """
    sets = _sets(root)
    rates = [read_settings(OnexShards, folder / "metadata.json").hz for folder in sets]
    for folder, rate in zip(sets, rates, strict=True):
        if rate != rates[0]:
            raise BadInput(
                f"{folder}: hz={rate:g}, but {sets[0]} has {rates[0]:g}; import them one by one"
            )
    return spec_v2(rates[0]), STATE_NAMES


def import_onex_v2(root: Path, out: Path) -> TokenStore:
    """Write every recording of a shard as a drive, a step per clip; the set's name is the split.

    Row t of the actions is the mean of the states of clip t's frames, as `tokenizer.encode` does.

    Raises:
        BadInput: as `read_onex_v2`; or `out` holds another store.
    """
    key = content_key("onex_v2", find_onex_v2(root), out.parent)
    spec, names = plan_onex_v2(root)
    return import_tokens(out, key, spec, names, lambda: _drives(_sets(root)))


def spec_v2(hz: float = 30) -> TokenSpec:
    return TokenSpec(
        grid=GRID,
        vocab_size=VOCAB,
        fps=float(hz),
        frames_per_step=CLIP_FRAMES,
        image_size=(PIXELS_PER_TOKEN * GRID[1], PIXELS_PER_TOKEN * GRID[2]),
        tokenizer="cosmos_dv",
    )


def _sets(root: Path) -> list[Path]:
    marks = ("video_0.bin", "videos/video_0.bin")
    return find_sets(root, marks, "1X's val_v2.0 (metadata.json, video_0.bin) or its parent")


def _files(folder: Path, index: int) -> dict[str, Path]:
    nested = (folder / FOLDERS["video"]).is_dir()
    found = {}
    for kind, sub in FOLDERS.items():
        ending = "json" if kind == "metadata" else "bin"
        found[kind] = (folder / sub if nested else folder) / f"{kind}_{index}.{ending}"
    return found


def _read_shard(folder: Path, index: int) -> OnexShard:
    files = _files(folder, index)
    said = read_settings(OnexShardMetadata, files["metadata"])
    if said.shard_ind not in (None, index):
        raise BadInput(
            f"{files['metadata']}: shard_ind={said.shard_ind}, but its name says {index}; "
            "copy the whole set"
        )
    num = said.shard_num_frames
    tokens = raw_array(files["video"], "int32", (-(-num // CLIP_FRAMES), *GRID))
    check_tokens(tokens, spec_v2(), str(files["video"]))
    states = raw_array(files["states"], "float32", (num, len(STATE_NAMES)))
    check_finite(files["states"], states)
    ids = raw_array(files["segment_idx"], "int32", (num,))
    shard = OnexShard(index, files, tokens, states, ids)
    shard.segments()
    return shard


def _drives(sets: list[Path]) -> Iterator[NewDrive]:
    read = [read_onex_v2(folder) for folder in sets]  # all of them before the first drive
    for folder, (_, shards) in zip(sets, read, strict=True):
        found = [(shard, *segment) for shard in shards for segment in shard.segments()]
        for place, (shard, number, start, stop) in enumerate(found):
            name = f"{folder.resolve().name}-{shard.index:03d}-{number:06d}"
            rows = shard.states[start * CLIP_FRAMES : stop * CLIP_FRAMES]
            actions = rows.reshape(-1, CLIP_FRAMES, rows.shape[1]).mean(axis=1)
            meta = {
                "source": f"1X, {shard.files['video']}",
                "segment": number,
                "source_clips": [start, stop],
            }
            split = split_of(folder, name, place, len(found))
            yield TokenDrive(name, split, shard.tokens[start:stop], actions), meta
