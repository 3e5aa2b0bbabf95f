"""Reconstruction quality of a tokenizer on unseen frames."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from tqdm import tqdm

from drives.clips.preprocessing import to_pixels, to_uint8
from drives.drive import Drive
from tokenizer.load import Tokenizer
from tokenizer.losses.lpips import PerceptualDistance
from tokenizer.metrics import CodebookStats, psnr, ssim
from training.errors import BadInput

BATCH = 32  # frames per batch of an image tokenizer


def long_enough(drives: Sequence[Drive], clip_frames: int) -> list[Drive]:
    """The drives with at least `clip_frames` frames; BadInput where there is none."""
    long = [drive for drive in drives if len(drive.actions) >= clip_frames]
    if not long:
        longest = max(len(drive.actions) for drive in drives)
        raise BadInput(
            f"all {len(drives)} drives of the split are shorter than the {clip_frames} frames that "
            f"the tokenizer reads at once (longest: {longest}); give longer drives"
        )
    return long


@torch.no_grad()
def evaluate_tokenizer(
    tokenizer: Tokenizer,
    drives: Sequence[Drive],
    perceptual: PerceptualDistance | None,
    device: str,
    max_frames: int = 1000,
    out: Path | None = None,
) -> dict[str, Any]:
    """PSNR (dB), SSIM, LPIPS and codebook statistics over evenly spread frames of the drives.

    With `out`, writes `reconstructions.png` there: frames above their reconstructions. Drives
    shorter than the tokenizer's clips are skipped and counted. Without `perceptual` there is no
    LPIPS.

    Raises:
        BadInput: all drives are too short.
    """
    num_given, drives = len(drives), long_enough(drives, tokenizer.clip_frames)
    tokenizer = tokenizer.to(device)
    quantizer = tokenizer.network.quantizer
    stats = CodebookStats(quantizer.vocab_size, quantizer.factors)
    total = sum(len(drive.actions) for drive in drives)
    stride, length = max(1, -(-total // max_frames)), tokenizer.clip_frames
    scores: dict[str, list[torch.Tensor]] = {"psnr": [], "ssim": []}
    if perceptual is not None:
        scores["lpips"] = []
    shown: list[torch.Tensor] = []
    for drive in tqdm(drives, "reconstructing", unit="drive"):
        chosen = (f for i, f in enumerate(drive.frames()) if i // length % stride == 0)
        # One batch at a time: a whole drive may exceed the memory.
        while batch := list(islice(chosen, length if length > 1 else BATCH)):
            if len(batch) < length:  # the drive ends within a clip
                break
            pixels = to_pixels(tokenizer.fit(np.stack(batch)).to(device))
            tokens = tokenizer.encode(pixels)
            stats.update(tokens)
            fake = tokenizer.decode(tokens)
            scores["psnr"].append(psnr(fake, pixels))
            scores["ssim"].append(ssim(fake, pixels))
            if perceptual is not None:
                scores["lpips"].append(perceptual(fake, pixels))
            shown.append(to_uint8(torch.stack([pixels[0], fake[0]])).cpu())
    if out is not None:
        samples = [shown[i] for i in np.linspace(0, len(shown) - 1, min(8, len(shown))).astype(int)]
        grid = rearrange(torch.stack(samples), "n row c h w -> (row h) (n w) c").numpy()
        Image.fromarray(grid).resize((grid.shape[1] * 2, grid.shape[0] * 2), 0).save(
            out / "reconstructions.png"
        )
    return {
        "num_drives": len(drives),
        "num_short_drives": num_given - len(drives),
        "num_frames": sum(len(values) for values in scores["psnr"]),
        **{name: torch.cat(values).mean().item() for name, values in scores.items()},
        "codebook_usage": stats.usage.item(),
        "codebook_reachable": stats.reachable.item(),
        "codebook_perplexity": stats.perplexity.item(),
        "codebook_entropy_bits": stats.entropy_bits.item(),
        "bits_per_frame": tokenizer.network.config.tokens_per_frame
        * float(np.log2(tokenizer.network.quantizer.vocab_size)),
    }
