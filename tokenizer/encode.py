"""Drives -> token store: python -m tokenizer.encode data.root=/path out=tokens/mine

Worker processes decode video ahead of the model. A finished drive is never encoded again, so a
restarted run continues. Several processes (shards) fill one store together: `shard=0
num_shards=4`, a Slurm array, or torchrun.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from drives.captions import of_steps
from drives.clips.frame_stream import FrameStream, read_ahead
from drives.clips.shapes import judge_sizes
from drives.clips.shards import Shard, find_shard
from drives.drive import Drive
from drives.folder import common_rate
from drives.tokens.statistics import note_statistics
from drives.tokens.store import TokenSpec, TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.versions import versions_of
from drives.video.gaps import Drop, describe
from tokenizer.config import EncodeConfig
from tokenizer.inference.config import AS_TRAINED
from tokenizer.inference.frame_encoder import (
    FrameEncoder,
    changed_share,
    joined,
    name_of,
    sample_clips,
)
from tokenizer.load import Tokenizer, fit_of, load_tokenizer
from tokenizer.published import opened_name
from tokenizer.store_key import check_kept
from training.checkpoints.provenance import provenance_of
from training.cli import command, plain
from training.disk.places import writable_folder
from training.errors import BadInput
from training.loading.rates import compare_rates
from training.machine import compute_device
from training.pages.wording import counted

COMPARED_FRAMES = 256
TOKENIZER_NOTE = "tokenizer"  # in the store's manifest: where its tokenizer comes from


def device_of(config: EncodeConfig) -> str:
    """The device to encode on; under torchrun every process has its own."""
    if config.device:
        return config.device
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def encode_drives(
    drives: Sequence[Drive],
    tokenizer: str | Path | Tokenizer,
    out: Path,
    action_names: Sequence[str],
    config: EncodeConfig | None = None,
    on_corrupt: str = "stop",
    shard: Shard | None = None,
    settings: str = "",
) -> TokenStore:
    """Encode the shard's missing drives into the store at `out`, and open the store.

    Args:
        settings: where the fields of `config` lie on the command line, for messages.

    Raises:
        BadInput: drives of different frame rates or of another aspect, a drive that cannot be
            read, a store made by another tokenizer or from other drives, or no GPU where one is
            asked for.
    """
    config = config or EncodeConfig()
    drives = encoded_versions(drives, action_names, config)
    opened = load_tokenizer(tokenizer)
    _judge_shapes(drives, opened, config, settings)
    writer = TokenStoreWriter(out, store_spec(drives, opened, config.every), action_names)
    shard = shard or Shard()
    mine = shard.take(drives)
    if not mine:
        raise BadInput(
            f"num_shards={shard.count}: there are {len(drives)} drives; use fewer shards"
        )
    todo = [drive for drive in mine if not writer.has(drive.id)]
    check_kept(writer, mine, config.on_gap)
    if todo:
        writer.note(TOKENIZER_NOTE, provenance_of(opened.manifest))
        encoder = _ready(opened, config)
        facts: dict[str, object] = {}
        if config.inference != AS_TRAINED:
            facts["encoded_with"] = _note_changes(writer, todo, opened, encoder, config)
        for drive, tokens, drops in _encode_all(todo, encoder, config):
            # A step's row explains the next step: the actions from its last frame on.
            frames = config.every * opened.frames_per_step
            actions = average_rows(drive.select_actions(action_names), frames)
            kept = {str(k): drive.meta[k] for k in ("source", "licence") if k in drive.meta}
            gaps = {"dropped_frames": [list(drop) for drop in drops]} if drops else {}
            captions = [asdict(caption) for caption in of_steps(drive.captions, frames)]
            texts = {"captions": captions} if captions else {}
            shown = {"footage": drive.footage.content, "drive_sha256": drive.digest}
            shown |= {"roads": drive.roads} if drive.roads else {}
            shown |= {"recorded_fps": drive.meta["fps"]} if drive.sampled else {}
            about = {**kept, **gaps, **texts, **facts, **shown}
            writer.write(drive.id, str(drive.split), tokens, actions, about)
        note_statistics(writer)
    return TokenStore(out, on_corrupt=on_corrupt)


def _judge_shapes(
    drives: Sequence[Drive], opened: Tokenizer, config: EncodeConfig, settings: str
) -> None:
    """Compare size, aspect and rate of the drives with those that the tokenizer takes."""
    if not opened.preprocessing.window:  # a window is cut from frames of any aspect
        size = opened.network.config.image_size
        remedy = "take a tokenizer of their aspect, "
        judge_sizes(drives, size, config.fit, f"{settings}fit", remedy)
    if opened.frames_per_step > 1 and (made := opened.trained_fps):
        given, every = str(drives[0].path), f"{settings}every"
        compare_rates(made, drives[0].fps / config.every, "the tokenizer", given, every)


def encoded_versions(
    drives: Sequence[Drive], action_names: Sequence[str], config: EncodeConfig
) -> list[Drive]:
    """The drives that an encoding of these drives holds (`drives.versions`)."""
    return versions_of(drives, action_names, config.every, config.phases, config.mirrored)


def store_spec(drives: Sequence[Drive], tokenizer: Tokenizer, every: int) -> TokenSpec:
    return tokenizer.spec(common_rate(drives) / every)


def encode_frames(
    drives: Sequence[Drive], encoder: FrameEncoder, config: EncodeConfig
) -> Iterator[tuple[int, Integer[np.ndarray, "step gh gw"], list[Drop], int]]:
    """Yield each finished drive: number, tokens, dropped frames, number of frames.

    Raises:
        BadInput: a frame cannot be read (named), or frames were dropped and `on_gap` is "stop".
    """
    fit = fit_of(encoder.tokenizer)
    stream = FrameStream(drives, fit, config.batch_size, config.every, config.on_gap)
    parts: dict[int, list[Tensor]] = defaultdict(list)
    # Batches of several drives arrive interleaved.
    encoders: dict[int, Any] = defaultdict(encoder.drive)
    counts: dict[int, int] = defaultdict(int)
    on_gpu = encoder.device.type == "cuda"
    for batch in read_ahead(stream, config.num_workers, pin_memory=on_gpu):
        if batch.problem:
            raise BadInput(batch.problem)
        if len(batch.frames):
            # Tokens stay on the device until the drive is complete: one wait per drive.
            counts[batch.drive] += len(batch.frames)
            tokens = encoders[batch.drive](batch.frames)
            parts[batch.drive] += [] if tokens is None else [tokens]
            continue
        del encoders[batch.drive]
        whole = torch.cat(parts.pop(batch.drive)).cpu().numpy()
        yield batch.drive, whole, batch.drops, counts.pop(batch.drive)


def average_rows(
    actions: Float[np.ndarray, "frame action"], every: int
) -> Float[np.ndarray, "step action"]:
    """Mean of the action rows between one kept frame and the next."""
    starts = np.arange(0, len(actions), every)
    sums = np.add.reduceat(actions, starts, axis=0)
    return sums / np.diff(np.append(starts, len(actions)))[:, None]


def _encode_all(
    drives: Sequence[Drive], encoder: FrameEncoder, config: EncodeConfig
) -> Iterator[tuple[Drive, np.ndarray, list[Drop]]]:
    """Drives with their tokens, with a progress bar in frames and warnings about gaps."""
    total = sum(-(-len(drive.actions) // config.every) for drive in drives)
    began, done = time.perf_counter(), 0
    with tqdm(desc="encoding", total=total, unit="frame") as progress:
        for number, tokens, drops, count in encode_frames(drives, encoder, config):
            if drops:
                tqdm.write(f"warning: {drives[number].path}: {describe(drops)}")
            yield drives[number], tokens, drops
            done += count
            progress.update(count)
    rate = done / (time.perf_counter() - began)
    print(
        f"{done} frames of {counted(len(drives), 'drive')}, {rate:.0f} frames/s on {encoder.device}"
    )


def _ready(opened: Tokenizer, config: EncodeConfig) -> FrameEncoder:
    try:
        return FrameEncoder(opened, device_of(config), config.inference)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"device={device_of(config)}: cannot be used ({error})") from error


def _note_changes(
    writer: TokenStoreWriter,
    drives: Sequence[Drive],
    opened: Tokenizer,
    encoder: FrameEncoder,
    config: EncodeConfig,
) -> str:
    """Measure the share of tokens that faster inference changes; print it, note it in the store."""
    length = opened.clip_frames
    clips = sample_clips(drives, fit_of(opened), COMPARED_FRAMES, length, config.every)
    batches = clips if length > 1 else torch.cat(clips).split(config.batch_size)
    share = changed_share(opened, encoder, batches)
    name = f"{name_of(config.inference)} on {encoder.device.type}"
    writer.note(name, share, joined)  # joined with other shards
    print(
        f"{name}: {share['changed_token_share']:.3%} of {share['num_tokens_compared']} sampled "
        "tokens differ from float32 as trained"
    )
    return name


@command("commands/encode", files="ckpt")
def main(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    fields = EncodeConfig.__dataclass_fields__
    config = EncodeConfig(**{str(key): cfg[key] for key in cfg if key in fields})
    compute_device(config.device)
    out, shard = writable_folder("out", cfg.out), find_shard(cfg.shard, cfg.num_shards)
    values = plain(cfg)
    tokenizer = opened_name(cfg.tokenizer, values["ckpt"], values["options"])
    source = instantiate(cfg.data.source, _convert_="object")
    drives = source.open()
    names = source.columns(drives)
    store = encode_drives(drives, tokenizer, out, names, config, shard=shard)
    num_steps = store.catalog.num_steps
    steps = int(num_steps.sum())
    if shard.count > 1:
        print(f"shard {shard.index} of {shard.count}: {len(shard.take(drives))} drives, done")
    print(
        f"{cfg.out}: {counted(len(num_steps), 'drive')}, {steps} steps of {store.spec.grid} tokens"
    )


if __name__ == "__main__":
    main()
