"""Scores of frames: each against its real one, and each video by itself.

All take uint8 RGB frames and return one number per frame or clip, never only a mean.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from drives.clips.preprocessing import to_pixels, to_uint8
from tokenizer.losses.lpips import PerceptualDistance
from tokenizer.metrics import flicker, psnr, ssim

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@torch.no_grad()
def against_real(
    pred: UInt8[Tensor, "time pred_h pred_w 3"],
    real: UInt8[Tensor, "time h w 3"],
    perceptual: PerceptualDistance | None = None,
) -> dict[str, Float[Tensor, " time"]]:
    """psnr (dB), ssim and, with a network, lpips of each frame; `pred` is scaled to `real`."""
    a, b = (to_pixels(frames.movedim(-1, 1)) for frames in (pred, real))
    if a.shape[-2:] != b.shape[-2:]:
        a = F.interpolate(a, b.shape[-2:], mode="bicubic", antialias=True).clamp(-1, 1)
    scores = {"psnr": psnr(a, b), "ssim": ssim(a, b)}
    if perceptual is not None:
        device = next(perceptual.network.parameters()).device
        scores["lpips"] = perceptual(a.to(device), b.to(device)).cpu()
    return scores


def beside_real(
    pred: Float[Tensor, "time 3 h w"], real: Float[Tensor, "time 3 h w"]
) -> dict[str, Float[Tensor, ""]]:
    """Scores of a whole video in [-1, 1] beside the real one.

    Returns:
        flicker (wrong change from frame to frame) and shimmer (change where the real video stands
        still), in 8-bit levels, and sharpness as a multiple of the real video's.
    """
    wrong, still = flicker(pred, real)
    fake, there = (sharpness(to_uint8(x).movedim(1, -1).cpu()).mean() for x in (pred, real))
    return {"flicker": wrong, "shimmer": still, "sharpness": fake / there}


def luma(frames: UInt8[Tensor, "*n h w 3"]) -> Float[Tensor, "*n h w"]:
    """Brightness in 8-bit levels."""
    return frames.float() @ frames.new_tensor(LUMA, dtype=torch.float32)


def sharpness(frames: UInt8[Tensor, "time h w 3"]) -> Float[Tensor, " time"]:
    """Variance of the Laplacian of each frame's brightness, in squared 8-bit levels.

    Noise is sharp, too: neither less nor more than real frames is better.

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".
    """
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    edges = F.conv2d(luma(frames)[:, None], kernel[None, None])
    return edges.flatten(1).var(1, correction=0)


def flicker_alone(frames: UInt8[Tensor, "time h w 3"]) -> Float[Tensor, ""]:
    """Mean |I(t-1) - 2 I(t) + I(t+1)| of the brightness in 8-bit levels, without a real video.

    Even motion of smooth surfaces cancels; frames that jump back and forth and moving edges do not.
    Compare with real videos. Beside a real video, see `tokenizer.metrics.flicker`.
    """
    y = luma(frames)
    return (y[:-2] - 2 * y[1:-1] + y[2:]).abs().mean()


def change(frames: UInt8[Tensor, "time h w 3"]) -> Float[Tensor, ""]:
    """Mean |I(t+1) - I(t)| of the brightness in 8-bit levels; 0 for a frozen video."""
    return luma(frames).diff(dim=0).abs().mean()
