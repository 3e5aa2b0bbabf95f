"""Segments as commaVQ publishes them, of other sizes and made up."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


def make_segments(count: int, num_frames: int = 24, poses: bool = True) -> dict[str, Arrays]:
    """Tokens and poses of `count` segments, by key."""
    rng = np.random.default_rng(0)
    segments: dict[str, Arrays] = {}
    for index in range(count):
        arrays: Arrays = {"token.npy": rng.integers(0, 1024, (num_frames, 8, 16)).astype(np.int16)}
        if poses:
            scale = np.array([30.0, 0.5, 0.2, 1e-3, 2e-3, 1e-2])
            arrays["pose.npy"] = rng.normal(size=(num_frames, 6)) * scale
        segments[f"segment-{index:02d}"] = arrays
    return segments


def packed(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_tar(path: Path, segments: dict[str, Arrays], folder: str = "") -> Path:
    """An archive as `webdataset` writes it; gzipped where it is called so."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for key, arrays in segments.items():
            members = {"json": b'{"file_name": "%s"}' % key.encode()}
            members |= {name: packed(array) for name, array in arrays.items()}
            for name, data in members.items():
                info = tarfile.TarInfo(f"{folder}{key}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    data = raw.getvalue()
    path.write_bytes(data if path.suffix == ".tar" else gzip.compress(data, 1))
    return path
