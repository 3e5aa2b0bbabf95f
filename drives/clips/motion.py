"""How the scene ahead moves from frame to frame."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

WHITENING = 0.6  # power of the magnitude that each frequency is divided by; 1: the phase alone
BANDWIDTH = 0.1  # of the frequencies that count, in cycles per pixel


def scene_motion(
    frames: UInt8[Tensor, "clip time 3 h w"],
) -> Float[Tensor, "clip step"]:
    """Horizontal motion of the scene ahead, pixels per frame, by phase correlation.

    Measured in the upper half of the image, which shows what lies ahead. The scene moves right
    (positive) when the car turns left. A symmetric Hann window hides the borders. A parabola
    refines the peak of the cross-power spectrum (Kuglin and Hines 1975).

    Decoders draw patterns that stand still, such as checkerboards of their cells, and a plain phase
    correlation reads them as a scene that does. So the mean over all frames is subtracted, which
    holds every pattern that is always there, and fine detail counts less: it is drawn anew by the
    decoder where coarse detail follows the scene. Clips of several scenes make a better mean.
    """
    clips, time = frames.shape[:2]
    grey = frames.float().mean(2)[..., : frames.shape[-2] // 2, :]
    grey = grey - grey.mean((0, 1), keepdim=True)
    grey = grey - grey.mean((-2, -1), keepdim=True)
    height, width = grey.shape[-2:]
    window = torch.hann_window(height, False)[:, None] * torch.hann_window(width, False)
    spectrum = torch.fft.fft2(grey * window.to(grey.device))
    cross = spectrum[:, 1:] * spectrum[:, :-1].conj()
    size = cross.abs()
    cross = cross / (size + 1e-3 * size.mean()).clamp(min=1e-9) ** WHITENING
    surface = torch.fft.ifft2(cross * _low_pass(height, width).to(grey.device)).real
    surface = torch.fft.fftshift(surface, dim=(-2, -1)).reshape(clips * (time - 1), height, width)
    flat = surface.flatten(1).argmax(1)
    rows, columns = flat // width, flat % width
    shifts = columns.float() - width // 2 + _parabola(surface, rows, columns)
    still = surface.flatten(1).amax(1) <= 0  # the same frame throughout: nothing but its mean
    return shifts.masked_fill(still, 0.0).reshape(clips, time - 1)


def _low_pass(height: int, width: int) -> Float[Tensor, "h w"]:
    down, right = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)
    return torch.exp(-(down**2 + right**2) / (2 * BANDWIDTH**2))


def _parabola(surface: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sub-pixel offset of the peak from its two horizontal neighbours."""
    index, width = torch.arange(len(surface), device=surface.device), surface.shape[-1]
    left = surface[index, rows, (columns - 1) % width]
    right = surface[index, rows, (columns + 1) % width]
    centre = surface[index, rows, columns]
    offset = (left - right) / (2 * (left - 2 * centre + right) - 1e-9)
    return offset.clamp(-0.5, 0.5)
