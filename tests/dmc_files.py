"""Files of the DeepMind control suite as Video Occupancy Models reads them, smaller and made up."""

from pathlib import Path

import h5py
import numpy as np
from encoded_videos import smooth_frames


def write_dmc(
    path: Path, lengths: tuple[int, ...] = (20, 20), stack: int = 1, latents: str = ""
) -> dict[str, np.ndarray]:
    """Episodes of these lengths; returns the arrays of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    count = sum(lengths)
    firsts = np.cumsum([0, *lengths[:-1]])
    kinds = np.ones(count, np.int64)
    kinds[firsts], kinds[firsts + np.array(lengths) - 1] = 0, 2
    pictures = smooth_frames(count, 84, 84).transpose(0, 3, 1, 2)
    starts = np.repeat(firsts, lengths)
    ages = range(stack - 1, -1, -1)
    rows = [pictures[np.maximum(np.arange(count) - age, starts)] for age in ages]
    action = rng.uniform(-1, 1, (count, 6)).astype(np.float32)
    reward = rng.uniform(0, 1, count).astype(np.float32)
    action[firsts], reward[firsts] = 0, 0
    arrays = {
        "observation": np.concatenate(rows, axis=1),
        "action": action,
        "reward": reward,
        "discount": np.ones(count, np.float32),
        "step_type": kinds,
    }
    if latents:
        vocab, width = {"vae_latents": (1024, 25), "dino_latents": (8192, 196)}[latents]
        arrays[latents] = rng.integers(0, vocab, (count, width))
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return arrays
