"""Drives as episodes of the DeepMind control suite in HDF5: what Video Occupancy Models reads.

One file per split, one episode per drive; the layout: `drives/importers/recordings/dmc.py`.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from drives.drive import Drive
from drives.exporters.export_format import ExportFormat, ExportOptions, refuse_varying
from drives.folder import open_drives
from drives.importers.base import cover
from drives.importers.recordings.dmc import FIRST, LAST, MID
from drives.tokens.store import TokenStore
from drives.video.gaps import describe
from drives.video.rate import same_rate
from training.disk.leftovers import written_whole
from training.disk.places import refuse_existing
from training.errors import BadInput
from training.ranges import within

logger = logging.getLogger(__name__)

LATENTS = {1024: "vae_latents", 8192: "dino_latents"}  # upstream's names, by size of the codebook
BLOCK = 64  # frames in memory


@dataclass(frozen=True)
class DmcExportOptions(ExportOptions):
    """Settings of the export.

    Attributes:
        side: height and width of the frames, which are scaled to cover it and cut.
        frame_stack: frames in a row; the first of a drive fills its stack.
        latents: token store of the same drives; becomes `vae_latents` (1024 codes) or
            `dino_latents` (8192).
    """

    side: int = 84
    frame_stack: int = 1
    latents: str | None = None


def export(root: Path, out: Path, options: DmcExportOptions) -> list[Path]:
    """Write `train.hdf5`, `val.hdf5`, `test.hdf5`, as far as there are drives of a split.

    Raises:
        BadInput: h5py is not there, a drive cannot be used or differs in its columns or rate, a
            rate varies, the store lacks a drive or has another vocabulary, or a file exists.
    """
    within(8, 4096, side=options.side)
    within(1, 64, frame_stack=options.frame_stack)
    try:
        import h5py
    except ImportError as error:
        raise BadInput(
            f"{out}: writing it needs the package h5py; pip install 'dashcast[hdf5]'"
        ) from error
    drives = open_drives(root)
    store = TokenStore(Path(options.latents)) if options.latents else None
    if store is not None and store.spec.vocab_size not in LATENTS:
        raise BadInput(
            f"{options.latents}: has {store.spec.vocab_size} codes; upstream knows "
            f"{' and '.join(map(str, LATENTS))}"
        )
    splits: dict[str, list[Drive]] = {}
    refuse_varying(drives)
    for drive in drives:
        _check(drive, drives[0], store)
        splits.setdefault(str(drive.split), []).append(drive)
    paths = [out / f"{split}.hdf5" for split in splits]
    for path in paths:
        refuse_existing("out", path)
    for path, chosen in zip(paths, splits.values(), strict=True):
        if len({len(drive.actions) for drive in chosen}) > 1:
            logger.warning("%s: episodes differ in length; upstream takes all for equal", path)
        for drive in chosen:
            if drops := drive.drops:
                what = "%s: %s; the format has no place for that"
                logger.warning(what, drive.path, describe(drops))
        with written_whole(path) as partial, h5py.File(partial, "w") as file:
            _write(file, chosen, store, options)
    return paths


def _check(drive: Drive, first: Drive, store: TokenStore | None) -> None:
    if drive.action_names != first.action_names:
        raise BadInput(
            f"{drive.path}: has columns {', '.join(drive.action_names)}, {first.path} "
            f"{', '.join(first.action_names)}; export drives of one kind"
        )
    if not same_rate(drive.fps, first.fps):
        raise BadInput(
            f"{drive.path}: has {drive.fps:g} frames per second, {first.path} has {first.fps:g}; "
            "export drives of one rate"
        )
    held = store.find(drive.id) if store is not None else None
    if store is not None and (held is None or len(held.tokens) != len(drive.actions)):
        raise BadInput(f"{store.root}: holds no tokens for each frame of {drive.id}; encode it")


def _write(file: Any, drives: Sequence[Drive], store: TokenStore | None, options: Any) -> None:
    count, side = sum(len(drive.actions) for drive in drives), options.side
    shape = (count, 3 * options.frame_stack, side, side)
    observation = file.create_dataset("observation", shape, np.uint8)
    columns = [episode_rows(drive.action_names, drive.actions) for drive in drives]
    for name in columns[0]:
        file[name] = np.concatenate([column[name] for column in columns])
    if store is not None:
        found = [store.find(drive.id) for drive in drives]
        tokens = [np.asarray(held.tokens, np.int64) for held in found if held is not None]
        name = LATENTS[store.spec.vocab_size]
        file[name] = np.concatenate([each.reshape(len(each), -1) for each in tokens])
    row = 0
    for drive in drives:
        stacks = stacked(drive.frames(), (side, side), options.frame_stack)
        while block := list(islice(stacks, BLOCK)):
            observation[row : row + len(block)] = np.stack(block)
            row += len(block)


def episode_rows(
    names: Sequence[str], actions: Float[np.ndarray, "frame action"]
) -> dict[str, np.ndarray]:
    """Columns of one episode: each action stands at the frame that it led to.

    The columns `reward` and `discount` are what they are called; else 0 and 1. Of the others,
    those called `action_...` are the action where there are any.
    """
    led = np.concatenate([np.zeros((1, actions.shape[1])), actions[:-1]]).astype(np.float32)
    named = dict(zip(names, led.T, strict=True))
    count = len(actions)
    reward = named.pop("reward", np.zeros(count, np.float32))
    discount = named.pop("discount", np.ones(count, np.float32))
    discount[0] = 1
    chosen = [name for name in named if name.startswith("action_")] or list(named)
    kinds = np.full(count, MID, np.int64)
    kinds[0], kinds[-1] = FIRST, LAST
    values = np.stack([named[n] for n in chosen], 1) if chosen else np.zeros((count, 0), np.float32)
    return {"action": values, "reward": reward, "discount": discount, "step_type": kinds}


def stacked(
    frames: Iterator[UInt8[np.ndarray, "height width 3"]], size: tuple[int, int], count: int
) -> Iterator[UInt8[np.ndarray, "channels height width"]]:
    """Each frame behind the `count - 1` before it; the first fills its own stack."""
    past: list[np.ndarray] = []
    for frame in frames:
        picture = cover(frame, size).transpose(2, 0, 1)
        past = [*(past or [picture] * count)[1:], picture]
        yield np.concatenate(past)


FORMAT = ExportFormat(
    "HDF5 episodes of the DeepMind control suite", "drives", export, DmcExportOptions
)
