"""A video is a function of its frames: on any CPU, in any process, after any other video."""

import ctypes
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from encoded_videos import content, contents, contents_on, smooth_frames

from drives import video

# AV_CPU_FLAG_*: nothing, SSE2, SSSE3.
UNITS = {"none": 0, "sse2": 0x1B, "ssse3": 0xDB}


# Where the CPU has AVX-512, x264's mbtree made 5 to 30 of 100 another video, at these sizes.
@pytest.mark.parametrize("size", [24, 32])
def test_an_earlier_video_leaves_no_trace(size: int, tmp_path: Path) -> None:
    assert len(contents(tmp_path, 60, size, size)) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no choice of CPUs here")
def test_the_number_of_cpus_does_not_matter(tmp_path: Path) -> None:
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        pytest.skip("one CPU only")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        one = pool.apply(contents_on, ({min(usable)}, tmp_path, 256, 64))
    assert contents(tmp_path, 1, 256, 64) == one


@contextmanager
def vector_unit(flags: int) -> Iterator[None]:
    """FFmpeg as on a CPU that has no more than that."""
    files = sorted((Path(av.__file__).parent.parent / "av.libs").glob("libavutil-*"))
    if not files:
        pytest.skip("PyAV without its own FFmpeg")
    library = ctypes.CDLL(str(files[0]))
    library.av_force_cpu_flags(flags)
    try:
        yield
    finally:
        library.av_force_cpu_flags(-1)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 50), (33, 47)])
def test_the_vector_unit_does_not_matter(
    unit: str, height: int, width: int, tmp_path: Path
) -> None:
    frames = smooth_frames(6, height, width)
    frames[3:] = np.random.default_rng(0).integers(0, 256, frames[3:].shape)
    video.write_video(tmp_path / "here.mp4", frames, 10)
    here = content(tmp_path / "here.mp4")
    with vector_unit(UNITS[unit]):
        video.write_video(tmp_path / "there.mp4", frames, 10)
        assert content(tmp_path / "here.mp4") == here
    assert content(tmp_path / "there.mp4") == here
