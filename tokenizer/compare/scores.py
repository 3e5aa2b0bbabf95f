"""Scores of one tokenizer on given clips: quality, flicker, codes, bits, speed, size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from drives.clips.preprocessing import Preprocessing, to_pixels
from drives.drive import Drive
from tokenizer.compare.fid import FeatureStats, frechet_distance
from tokenizer.compare.inception import FEATURES, Inception
from tokenizer.load import Tokenizer, fit_of
from tokenizer.losses.lpips import PerceptualDistance
from tokenizer.metrics import CodebookStats, flicker, psnr, ssim
from training.watch.clock import now

BATCH = 32
TIMED_FRAMES, TIMINGS = 33, 3  # 1 + a multiple of 8, as video tokenizers need


@dataclass(frozen=True)
class Clips:
    """Consecutive frames of drives, decoded on request.

    Attributes:
        places: (drive, number of the first frame) of each clip.
        size: (height, width) at which recorded and reconstructed frames are compared.
        preprocessing: cuts the part of a recorded frame that the tokenizers see.
    """

    drives: Sequence[Drive]
    places: Sequence[tuple[int, int]]
    num_frames: int
    size: tuple[int, int]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def fit(self, frames: UInt8[np.ndarray, "time h w 3"]) -> UInt8[Tensor, "time 3 height width"]:
        """The target of the reconstruction: frames cropped and scaled."""
        return self.preprocessing.fit(frames, self.size)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "time h w 3"]]:
        for drive, start in self.places:
            yield np.stack(list(self.drives[drive].frames(start, start + self.num_frames)))


@dataclass(frozen=True)
class Scores:
    """One row of the comparison.

    Attributes:
        psnr, ssim, lpips: means over frames; dB, up to 1, down to 0.
        rfid: Frechet distance between recorded and reconstructed frames; None: not measured.
        flicker, still_flicker: see `flicker`, in 8-bit levels; None where nothing stands still.
        usage: share of the codes that occur in the clips.
        entropy_bits: entropy of the code frequencies, per token.
        tokens_per_frame: in the limit of a long drive (a separate first frame is ignored).
        bits_per_frame: uncompressed, with codes of equal length.
        coded_bits_per_frame: see `adaptive_code_bits`.
        encode_fps, decode_fps: frames per second, in batches, on the device.
    """

    psnr: float
    ssim: float
    lpips: float
    rfid: float | None
    flicker: float
    still_flicker: float | None
    usage: float
    entropy_bits: float
    tokens_per_frame: float
    vocab_size: int
    bits_per_frame: float
    coded_bits_per_frame: float
    encode_fps: float
    decode_fps: float
    num_parameters: int
    num_frames: int
    image_size: tuple[int, int]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass
class Judge:
    """Shared by all tokenizers: metric networks and statistics of the recorded frames."""

    perceptual: PerceptualDistance
    device: str
    inception: Inception | None = None
    recorded: FeatureStats | None = field(default=None)


@torch.no_grad()
def score_tokenizer(
    tokenizer: Tokenizer, clips: Clips, judge: Judge, tick: Callable[[], object] = lambda: None
) -> Scores:
    """Compute a whole row; `tick` is called after each clip.

    A tokenizer sees frames of its own size; reconstructions are scaled to `clips.size`.
    """
    tokenizer = tokenizer.to(judge.device)
    spec = tokenizer.spec(1.0)
    codes = CodebookStats(spec.vocab_size)
    quality = _quality(tokenizer, clips, judge, codes, tick)
    tokens_per_frame = spec.tokens_per_step / spec.frames_per_step
    coded_bits = adaptive_code_bits(codes.counts) / int(codes.counts.sum())
    encode_fps, decode_fps = speed(tokenizer, next(iter(clips)))
    return Scores(
        **quality,
        usage=codes.usage.item(),
        entropy_bits=codes.entropy_bits.item(),
        tokens_per_frame=tokens_per_frame,
        vocab_size=spec.vocab_size,
        bits_per_frame=tokens_per_frame * float(np.log2(spec.vocab_size)),
        coded_bits_per_frame=coded_bits * tokens_per_frame,
        encode_fps=encode_fps,
        decode_fps=decode_fps,
        num_parameters=sum(p.numel() for p in tokenizer.parameters()),
        image_size=spec.image_size,
    )


def _quality(
    tokenizer: Tokenizer,
    clips: Clips,
    judge: Judge,
    codes: CodebookStats,
    tick: Callable[[], object],
) -> dict[str, Any]:
    """Scores that compare pictures, by name; counts the tokens in `codes`."""
    fit = fit_of(tokenizer)
    by_frame: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "lpips": []}
    changes: list[tuple[Tensor, Tensor]] = []
    features = FeatureStats(FEATURES, judge.device)
    recorded = FeatureStats(FEATURES, judge.device)
    for frames in clips:
        tokens, fake = reconstruct(tokenizer, fit(frames).to(judge.device), clips.size)
        real = to_pixels(clips.fit(frames).to(judge.device))[: len(fake)]
        codes.update(tokens)
        by_frame["psnr"].append(psnr(fake, real))
        by_frame["ssim"].append(ssim(fake, real))
        by_frame["lpips"].append(judge.perceptual(fake, real))
        changes.append(flicker(fake, real))
        if judge.inception is not None:
            features.update(judge.inception(fake))
            if judge.recorded is None:
                recorded.update(judge.inception(real))
        tick()
    rfid = None
    if judge.inception is not None:
        judge.recorded = judge.recorded or recorded
        rfid = frechet_distance(judge.recorded, features)
    wrong, still = (torch.stack(values) for values in zip(*changes, strict=True))
    return {
        **{name: torch.cat(values).mean().item() for name, values in by_frame.items()},
        "num_frames": sum(len(values) for values in by_frame["psnr"]),
        "rfid": rfid,
        "flicker": wrong.mean().item(),
        "still_flicker": None if still.isnan().all() else still.nanmean().item(),
    }


@torch.no_grad()
def reconstruct(
    tokenizer: Tokenizer, frames: UInt8[Tensor, "time 3 h w"], size: Sequence[int]
) -> tuple[Int[Tensor, "steps gh gw"], Float[Tensor, "shown 3 height width"]]:
    """Tokens of fitted frames, and their reconstructions in [-1, 1], scaled to `size`.

    A video tokenizer drops the last frames where they do not fill a step.
    """
    tokens = torch.cat(list(tokenizer.encode_stream(map(to_pixels, frames.split(BATCH)))))
    fake = torch.cat(list(tokenizer.decode_stream(tokens.split(BATCH)))).clamp(-1, 1)
    if tuple(fake.shape[-2:]) != tuple(size):
        fake = F.interpolate(fake, tuple(size), mode="bicubic", antialias=True).clamp(-1, 1)
    return tokens, fake


def adaptive_code_bits(counts: Int[Tensor, " code"]) -> float:
    """Code length in bits of an adaptive arithmetic coder for tokens with these counts.

    The coder learns the frequencies as it codes, so no side information is sent. The order of
    the tokens does not matter: their joint probability is
    (Gamma(V/2) / Gamma(n + V/2)) prod Gamma(c + 1/2) / Gamma(1/2).

    Source: Krichevsky & Trofimov 1981, the estimator with 1/2 added to every count.
    """
    c = counts.double()
    half = torch.tensor(0.5, dtype=torch.float64, device=c.device)
    whole = torch.lgamma(half * len(c)) - torch.lgamma(c.sum() + half * len(c))
    nats = -(whole + (torch.lgamma(c + half) - torch.lgamma(half)).sum())
    return float(nats / np.log(2))


@torch.no_grad()
def speed(tokenizer: Tokenizer, frames: UInt8[np.ndarray, "time h w 3"]) -> tuple[float, float]:
    """Frames per second of encode and decode, the best of a few batches."""
    fitted = fit_of(tokenizer)(frames)
    repeats = -(-TIMED_FRAMES // len(fitted))
    pixels = to_pixels(fitted.repeat(repeats, 1, 1, 1)[:TIMED_FRAMES].to(tokenizer.device))
    tokens = tokenizer.encode(pixels)
    encode = min(
        _seconds(lambda: tokenizer.encode(pixels), tokenizer.device) for _ in range(TIMINGS)
    )
    decode = min(
        _seconds(lambda: tokenizer.decode(tokens), tokenizer.device) for _ in range(TIMINGS)
    )
    return len(pixels) / encode, len(pixels) / decode


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    began = now(device)
    work()
    return now(device) - began
