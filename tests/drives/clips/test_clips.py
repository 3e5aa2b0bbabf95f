"""Clips: the same pixels and the same order from a cache and straight from the videos."""

import os
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from drives import content
from drives.clips import frame_cache
from drives.clips.data_module import ClipDataModule
from drives.clips.frame_cache import FrameCache, VideoFrames
from drives.folder import open_drives
from drives.sources import DriveSource
from drives.writing import write_drive
from training.checkpoints.folder import newest_first, read_weights
from training.errors import BadInput, CorruptSample
from training.run import build_data

CUT = (
    "+debug=fast",
    "callbacks.media=null",
    "trainer.max_steps=3",
    "trainer.log_every_n_steps=1",
    "checkpoints.every_steps=3",
)


@pytest.fixture
def drives(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        frames = rng.integers(0, 256, (40, 24, 40, 3), np.uint8)
        write_drive(tmp_path / name, frames, np.zeros((40, 1)), ["steering"], {"fps": 10})
    return open_drives(tmp_path)


def test_frames_from_the_video_are_those_of_the_cache(drives, tmp_path):
    cache = FrameCache(tmp_path / "cache", (16, 32))
    videos = pickle.loads(pickle.dumps(VideoFrames((16, 32))))  # as a worker gets it
    for drive in drives:
        cache._decode(drive)  # without the processes that `prepare` starts
        cached, decoded = cache.open(drive), videos.open(drive)
        for start in (0, 15, 16, 17, 31, 37):  # around the keyframes, in no order of decoding
            np.testing.assert_array_equal(
                cached[start : start + 3], decoded[start : start + 3], strict=True
            )


def flip(path):
    """One bit, as a disk does it; the dates stay."""
    content, stat = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("suffix", [".npy", ".sha256"])
def test_cached_frames_that_were_altered_are_named_and_decoded_again(
    drives, tmp_path, capsys, suffix
):
    cache = FrameCache(tmp_path / "cache", (16, 32))
    cache.prepare(drives, 1)
    whole = np.array(cache.open(drives[0]))
    (file,) = (tmp_path / "cache").glob(f"a-*{suffix}")
    flip(file)
    with pytest.raises(CorruptSample, match=r"a-.*\.npy: missing or altered .*, drive a"):
        cache.open(drives[0])
    cache.prepare(drives, 1)
    assert capsys.readouterr().out.count("altered since it was written; it is decoded again") == 1
    np.testing.assert_array_equal(cache.open(drives[0]), whole)


def test_new_frames_are_not_hashed_again_by_a_worker(drives, tmp_path, monkeypatch):
    monkeypatch.setattr(content, "TICK_S", -1.0)  # hashes of the newest files are kept, too
    cache, read = FrameCache(tmp_path / "cache", (16, 32)), []
    cache.prepare(drives, 1)
    fresh = content.Hashes(cache.root)  # what a worker reads when it starts
    monkeypatch.setattr(frame_cache, "hashes_of", lambda root: fresh)
    monkeypatch.setattr(content, "file_sha256", lambda file: read.append(file) or "")
    assert [len(cache.open(drive)) for drive in drives] == [40, 40]
    assert not read


def test_a_video_that_changed_under_its_name_is_decoded_again(drives, tmp_path):
    cache = FrameCache(tmp_path / "cache", (16, 32))
    cache.prepare(drives, 1)
    before = np.array(cache.open(drives[0]))
    shutil.copy2(drives[1].path / "video.mp4", drives[0].path / "video.mp4")  # of its date
    with pytest.raises(BadInput, match=r"a/video\.mp4: altered since it was written"):
        cache.prepare(open_drives(tmp_path), 1)
    shutil.copy2(drives[1].path / "drive.json", drives[0].path / "drive.json")  # it was meant
    changed = open_drives(tmp_path)[0]
    cache.prepare([changed], 1)
    np.testing.assert_array_equal(cache.open(changed), cache.open(drives[1]))
    assert (cache.open(changed) != before).any()


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_on_videos_equals_the_one_on_the_cache_and_writes_no_frames(
    num_workers, composed, fit, tmp_path
):
    weights, orders = [], []
    for frames in ("cache", "video"):
        cfg = composed("tokenizer_tiny", *CUT, f"data.frames={frames}", f"run={tmp_path}/{frames}")
        if frames == "video":
            cfg.data.root = str(instantiate(cfg.data.source).folder.resolve())
            cfg.data.source.cache = str(tmp_path / "none")
            cfg.data.num_workers = num_workers
        _, run, trainer = fit(cfg)
        weights.append(read_weights(newest_first(run.folder)[0]))
        orders.append(trainer.train_dataloader.order.samples_consumed)
    assert not (tmp_path / "none/frames").exists()
    assert orders[0] == orders[1] == 12
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_damaged_frame_is_a_corrupt_sample_with_its_name(drives, tmp_path):
    class Broken:
        def __getattr__(self, name):
            return getattr(drives[0], name)

        def frames(self, start, stop):
            raise BadInput(f"video.mp4: frame {start} cannot be decoded")

    with pytest.raises(CorruptSample, match="frame 5 cannot"):
        VideoFrames((16, 32)).open(Broken())[5:6]
    with pytest.raises(BadInput, match=r"data\.frames='disk': choose one of cache, video"):
        ClipDataModule(DriveSource(str(tmp_path)), (16, 32), frames="disk")


def test_balanced_training_draws_other_clips(composed):
    ids = {}
    alone = SimpleNamespace(is_global_zero=True, global_rank=0, world_size=1, max_steps=1)
    alone.lightning_module = SimpleNamespace(accumulate=1)
    for name, extra in {
        "plain": [],
        "zero": ["data.balance.features=[steering]", "data.balance.alpha=0"],
        "even": ["data.balance.features=[steering]", "data.balance.alpha=1"],
    }.items():
        data = build_data(composed("tokenizer_tiny", *CUT, *extra))
        data.prepare_data()
        data.trainer = alone
        loader = data.train_dataloader()
        size = len(loader.samples)
        drawn = np.array([i for batch in range(size // 4) for i in loader.order.global_ids(batch)])
        steering = np.concatenate(loader.samples.actions)[drawn, 0]
        ids[name] = (drawn.tolist(), np.abs(steering).mean())
    assert ids["plain"] == ids["zero"]
    assert ids["even"][0] != ids["plain"][0]
    assert ids["even"][1] > 1.2 * ids["plain"][1]  # turns are rarer than straight road
