"""1X's recordings in the published layouts, made up and small."""

import json
from pathlib import Path

import numpy as np


def write_onex_v1(folder: Path, frames: int = 40, side: int = 4) -> Path:
    """A set of version 1.1 with two recordings."""
    rng = np.random.default_rng(0)
    (folder / "actions").mkdir(parents=True)
    said = {"num_images": frames, "s": side, "vocab_size": 2**18, "hz": 30, "token_dtype": "uint32"}
    (folder / "metadata.json").write_text(json.dumps(said))
    rng.integers(0, 2**18, (frames, side, side)).astype("<u4").tofile(folder / "video.bin")
    (np.arange(frames, dtype="<i4") >= frames // 2).astype("<i4").tofile(folder / "segment_ids.bin")
    for name, width in (("joint_pos", 21), ("neck_desired", 1)):
        rng.normal(size=(frames, width)).astype("<f4").tofile(folder / f"actions/{name}.bin")
    return folder


def write_onex_v2(folder: Path, frames: int = 40) -> Path:
    """A validation set of version 2.0 with one shard."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    said = {"num_shards": 1, "num_images": frames, "hz": 30}
    (folder / "metadata.json").write_text(json.dumps(said))
    (folder / "metadata_0.json").write_text(
        json.dumps({"shard_ind": 0, "shard_num_frames": frames})
    )
    clips = -(-frames // 17)
    rng.integers(0, 64_000, (clips, 3, 32, 32)).astype("<i4").tofile(folder / "video_0.bin")
    rng.normal(size=(frames, 25)).astype("<f4").tofile(folder / "states_0.bin")
    np.full(frames, 3, "<i4").tofile(folder / "segment_idx_0.bin")
    return folder
