"""Reconstruction quality of a tokenizer on unseen frames."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from drives.clips.preprocessing import to_pixels, to_uint8
from drives.drive import Drive
from tokenizer.load import Tokenizer
from tokenizer.losses.lpips import PerceptualDistance
from tokenizer.metrics import CodebookStats, fixed_pattern, psnr, ssim
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


@dataclass
class Reconstructions:
    """Scores of reconstructed frames, and facts about the tokenizer's codes.

    Attributes:
        scores: PSNR (dB), SSIM and, with a perceptual network, LPIPS of every frame.
        drives: the drive of every frame.
        names: of every frame: drive@number.
        sha256: of the footage, the numbers and the size of the frames.
        facts: what is no mean over frames: counts and codebook statistics.
    """

    scores: dict[str, list[float]] = field(default_factory=dict)
    drives: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sha256: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, Any]:
        """Every figure by name: means over frames and facts."""
        return {name: float(np.mean(v)) for name, v in self.scores.items()} | self.facts

    def add(self, drive: str, frames: Sequence[int], **scores: torch.Tensor) -> None:
        self.drives += [drive] * len(frames)
        self.names += [f"{drive}@{frame}" for frame in frames]
        for name, values in scores.items():
            self.scores.setdefault(name, []).extend(values.tolist())


@torch.no_grad()
def evaluate_tokenizer(
    tokenizer: Tokenizer,
    drives: Sequence[Drive],
    perceptual: PerceptualDistance | None,
    device: str,
    max_frames: int = 1000,
    out: Path | None = None,
) -> Reconstructions:
    """PSNR (dB), SSIM, LPIPS and codebook statistics over evenly spread frames of the drives.

    With `out`, writes `reconstructions.png` there: frames above their reconstructions. Drives
    shorter than the tokenizer's clips are skipped and counted. Without `perceptual` there is no
    LPIPS. The fixed pattern is the part of the mean error that repeats at every token.

    Raises:
        BadInput: all drives are too short.
    """
    num_given, drives = len(drives), long_enough(drives, tokenizer.clip_frames)
    tokenizer = tokenizer.to(device)
    quantizer = tokenizer.network.quantizer
    stats = CodebookStats(quantizer.vocab_size, quantizer.factors)
    stride = max(1, -(-sum(len(drive.actions) for drive in drives) // max_frames))
    found, shown = Reconstructions(), []
    error = torch.zeros(3, *tokenizer.network.config.image_size, device=device)
    digest = hashlib.sha256(repr(tokenizer.network.config.image_size).encode())
    for drive in tqdm(drives, "reconstructing", unit="drive"):
        for numbers, batch in _batches(drive, stride, tokenizer.clip_frames):
            pixels = to_pixels(tokenizer.fit(np.stack(batch)).to(device))
            del batch  # recorded frames may be large
            tokens = tokenizer.encode(pixels)
            stats.update(tokens)
            fake = tokenizer.decode(tokens)
            error += (fake - pixels).sum(0)
            scores = {"psnr": psnr(fake, pixels), "ssim": ssim(fake, pixels)}
            if perceptual is not None:
                scores["lpips"] = perceptual(fake, pixels)
            found.add(drive.id, numbers, **scores)
            digest.update(f"{drive.footage.content}{drive.rate_mark} {numbers}".encode())
            shown.append(to_uint8(torch.stack([pixels[0], fake[0]])).cpu())
    if out is not None:
        _write_pairs(out / "reconstructions.png", shown)
    found.sha256 = digest.hexdigest()
    found.facts = {
        "num_drives": len(drives),
        "num_short_drives": num_given - len(drives),
        "num_frames": len(found.names),
        "fixed_pattern_levels": fixed_pattern(
            error / len(found.names), tokenizer.network.config.downsampling
        ).item(),
        "codebook_usage": stats.usage.item(),
        "codebook_reachable": stats.reachable.item(),
        "codebook_perplexity": stats.perplexity.item(),
        "codebook_entropy_bits": stats.entropy_bits.item(),
        "bits_per_frame": tokenizer.network.config.tokens_per_frame
        * float(np.log2(tokenizer.network.quantizer.vocab_size)),
    }
    return found


def _batches(
    drive: Drive, stride: int, length: int
) -> Iterator[tuple[list[int], list[UInt8[np.ndarray, "height width 3"]]]]:
    """Every `stride`-th clip of `length` frames, or batches of single frames, with their numbers.

    One batch at a time: a whole drive may exceed the memory.
    """
    chosen = ((i, f) for i, f in enumerate(drive.frames()) if i // length % stride == 0)
    while batch := list(islice(chosen, length if length > 1 else BATCH)):
        if len(batch) < length:  # the drive ends within a clip
            return
        numbers, frames = (list(part) for part in zip(*batch, strict=True))
        del batch
        yield numbers, frames


def _write_pairs(file: Path, shown: Sequence[UInt8[torch.Tensor, "2 3 height width"]]) -> None:
    """A picture of at most eight frames above their reconstructions, at twice the size."""
    samples = [shown[i] for i in np.linspace(0, len(shown) - 1, min(8, len(shown))).astype(int)]
    grid = rearrange(torch.stack(samples), "n row c h w -> (row h) (n w) c").numpy()
    size = (grid.shape[1] * 2, grid.shape[0] * 2)
    Image.fromarray(grid).resize(size, 0).save(file)
