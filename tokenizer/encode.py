"""Drives -> token store: python -m tokenizer.encode data.root=/path out=tokens/mine

Encodes drive by drive in several processes; a finished drive is never encoded again, so an
interrupted run goes on where it stopped.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer
from omegaconf import DictConfig
from tqdm import tqdm

from tokenizer.data import to_pixels
from tokenizer.drives import Drive
from tokenizer.load import Tokenizer, load_tokenizer
from tokenizer.published import opened_name
from tokenizer.token_store import TokenSpec, TokenStore, TokenStoreWriter
from training.cli import command, plain
from training.errors import BadInput


@dataclass(frozen=True)
class EncodeConfig:
    """How to encode.

    Attributes:
        every: keep every N-th frame; actions are averaged over the frames left out.
        batch_size: frames per forward pass.
        num_workers: processes on a CPU; on a GPU one process feeds the device.
    """

    every: int = 1
    batch_size: int = 64
    num_workers: int = 2


def encode_drives(
    drives: Sequence[Drive],
    tokenizer: str | Path,
    out: Path,
    action_names: Sequence[str],
    config: EncodeConfig | None = None,
    on_corrupt: str = "stop",
) -> TokenStore:
    """Encode all drives that the store at `out` does not hold yet, and open it.

    Raises:
        BadInput: drives of different frame rates, or a store made by another tokenizer.
    """
    config = config or EncodeConfig()
    opened = load_tokenizer(tokenizer)
    writer = TokenStoreWriter(out, store_spec(drives, opened, config.every), action_names)
    todo = [drive for drive in drives if not writer.has(drive.id)]
    if todo:
        jobs = _encode_all(todo, str(tokenizer), opened, config)
        progress = tqdm(zip(todo, jobs, strict=True), "encoding", len(todo), unit="drive")
        for drive, tokens in progress:
            # A step's row explains the next step: all that happens from its last frame on.
            frames = config.every * opened.frames_per_step
            actions = average_rows(drive.select_actions(action_names), frames)
            facts = {str(k): drive.meta[k] for k in ("source", "licence") if k in drive.meta}
            writer.write(drive.id, str(drive.split), tokens, actions, facts)
    return TokenStore(out, on_corrupt=on_corrupt)


def store_spec(drives: Sequence[Drive], tokenizer: Tokenizer, every: int) -> TokenSpec:
    rates = {round(drive.fps, 3): drive.id for drive in drives}
    if len(rates) > 1:
        (a, drive_a), (b, drive_b), *_ = rates.items()
        raise BadInput(
            f"{drive_a} has {a} fps and {drive_b} has {b}; a token store has one rate: "
            "keep drives of different rates in different folders"
        )
    return tokenizer.spec(drives[0].fps / every)


def encode_drive(
    drive: Drive, tokenizer: Tokenizer, config: EncodeConfig
) -> Integer[np.ndarray, "step gh gw"]:
    """Tokens of every `config.every`-th frame of one drive."""
    device = tokenizer.device
    frames = islice(drive.frames(), 0, None, config.every)
    batches = (
        to_pixels(tokenizer.fit(np.stack(batch)).to(device))
        for batch in batched(frames, config.batch_size)
    )
    return np.concatenate([t.cpu().numpy() for t in tokenizer.encode_stream(batches)])


def average_rows(
    actions: Float[np.ndarray, "frame action"], every: int
) -> Float[np.ndarray, "step action"]:
    """Mean of the action rows between one kept frame and the next."""
    starts = np.arange(0, len(actions), every)
    sums = np.add.reduceat(actions, starts, axis=0)
    return sums / np.diff(np.append(starts, len(actions)))[:, None]


def batched(items: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _encode_all(
    drives: Sequence[Drive], name: str, opened: Tokenizer, config: EncodeConfig
) -> Iterator[np.ndarray]:
    """Tokens of the drives in order, as they become ready."""
    if torch.cuda.is_available() or config.num_workers < 2 or len(drives) < 4:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = opened.to(device)
        yield from (encode_drive(drive, tokenizer, config) for drive in drives)
        return
    workers = min(config.num_workers, len(drives))
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (name,)) as pool:
        yield from pool.map(partial(_encode_in_worker, config=config), drives)


_worker_tokenizer: list[Tokenizer] = []


def _start_worker(name: str) -> None:
    torch.set_num_threads(1)
    _worker_tokenizer.append(load_tokenizer(name))


def _encode_in_worker(drive: Drive, config: EncodeConfig) -> np.ndarray:
    return encode_drive(drive, _worker_tokenizer[0], config)


@command("encode", files="ckpt")
def main(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    source = instantiate(cfg.data, _convert_="object")
    values = plain(cfg)
    tokenizer = opened_name(cfg.tokenizer, values["ckpt"], values["options"])
    drives = source.open()
    names = source.action_names(drives)
    config = EncodeConfig(cfg.every, cfg.batch_size, cfg.num_workers)
    store = encode_drives(drives, tokenizer, Path(cfg.out), names, config)
    steps = sum(entry["num_steps"] for entry in store.manifest["drives"].values())
    print(f"{cfg.out}: {len(drives)} drives, {steps} steps of {store.spec.grid} tokens")


if __name__ == "__main__":
    main()
