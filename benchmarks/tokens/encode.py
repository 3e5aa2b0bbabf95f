"""Encoding of drives, against its two limits: the video decoder and the model.

All three process the same drives in the same process. The decoder's frames are discarded; the
model's are in memory. Where decoder and model share the cores, the limit is
1 / (1 / decoder + 1 / model); with separate cores or a GPU, it is the slower one.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

import training  # noqa: F401  (first: it repairs torchvision)
from benchmarks import Row, interleaved, seconds
from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive
from drives.clips.frame_stream import FrameStream, read_ahead
from drives.drive import Drive
from drives.folder import open_drives
from drives.writing import write_drive
from tokenizer.config import EncodeConfig
from tokenizer.encode import encode_frames
from tokenizer.inference.frame_encoder import FrameEncoder, name_of
from tokenizer.load import fit_of, load_tokenizer

DRIVES, SECONDS, SIZE, REPEATS = 8, 60.0, 128, 3


def rows() -> Iterator[Row]:
    tokenizer = load_tokenizer("carracing")
    on_gpu = torch.cuda.is_available()
    device, workers = ("cuda", 8) if on_gpu else ("cpu", 1)
    configs = [EncodeConfig(num_workers=workers)]
    if on_gpu:
        configs.append(replace(configs[0], dtype="bfloat16", channels_last=True))
    else:
        configs.append(replace(configs[0], winograd=True))
    with tempfile.TemporaryDirectory() as folder:
        drives = _drives(Path(folder))
        frames = sum(len(drive.actions) for drive in drives)
        stream = FrameStream(drives, fit_of(tokenizer), configs[0].batch_size)
        batches = [batch.frames for batch in stream if len(batch.frames)]
        for config in configs:
            encoder = FrameEncoder(tokenizer, device, config.inference)
            contestants = {
                "decoder": lambda: _decode(stream, workers),
                "model": partial(seconds, partial(_encode, encoder, batches)),
                "both": partial(_encode_drives, drives, encoder, config),
            }
            best = interleaved(contestants, REPEATS)
            rate = {name: frames / taken for name, taken in best.items()}
            limit = _limit(rate["decoder"], rate["model"], workers, on_gpu)
            yield Row(
                f"encoding drives, {name_of(config.inference)}, {device}, {workers} decoding",
                f"{rate['both']:.0f} frames/s",
                f"decoder {rate['decoder']:.0f}, model {rate['model']:.0f}: limit {limit:.0f}",
                rate["both"] / limit,
            )


def _limit(decoder: float, model: float, workers: int, on_gpu: bool) -> float:
    enough_cores = torch.get_num_threads() + workers <= len(os.sched_getaffinity(0))
    return min(decoder, model) if on_gpu or enough_cores else 1 / (1 / decoder + 1 / model)


def _decode(stream: FrameStream, workers: int) -> float:
    """Frames per second of the decoder, without the start of its processes."""
    batches = iter(read_ahead(stream, workers))
    first, began, count = next(batches), time.perf_counter(), 0
    for batch in batches:
        count += len(batch.frames)
    return (time.perf_counter() - began) * (count + len(first.frames)) / count


def _encode_drives(drives: Sequence[Drive], encoder: FrameEncoder, config: EncodeConfig) -> float:
    """Frames per second of encoding, from the first finished drive on."""
    began, count, total = 0.0, 0, sum(len(drive.actions) for drive in drives)
    for _, _, _, frames in encode_frames(drives, encoder, config):
        if not began:
            began = time.perf_counter()
            continue
        count += frames
    return (time.perf_counter() - began) * total / count


def _encode(encoder: FrameEncoder, batches: list[torch.Tensor]) -> None:
    torch.cat([encoder(batch) for batch in batches]).cpu()


def _drives(root: Path) -> list[Drive]:
    config = CarRacingConfig(seed=3, num_train=DRIVES, num_val=0, num_test=0, seconds=SECONDS)
    for index in range(DRIVES):
        frames, actions, meta = make_drive(config, index)
        write_drive(root / f"d{index}", frames, actions, ACTION_NAMES, {**meta, "split": "train"})
    return open_drives(root)
