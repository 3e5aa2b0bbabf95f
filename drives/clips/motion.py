"""How the scene ahead moves from frame to frame."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def scene_motion(
    frames: UInt8[Tensor, "clip time 3 h w"],
) -> Float[Tensor, "clip step"]:
    """Horizontal motion of the scene ahead, pixels per frame, by phase correlation.

    Measured in the upper half of the image, which shows what lies ahead. The scene moves right
    (positive) when the car turns left. A symmetric Hann window hides the borders. A parabola
    refines the peak of the cross-power spectrum (Kuglin and Hines 1975).
    """
    clips, time = frames.shape[:2]
    grey = frames.float().mean(2)[..., : frames.shape[-2] // 2, :]
    grey = grey - grey.mean((-2, -1), keepdim=True)
    height, width = grey.shape[-2:]
    window = torch.hann_window(height, False)[:, None] * torch.hann_window(width, False)
    spectrum = torch.fft.fft2(grey * window.to(grey.device))
    cross = spectrum[:, 1:] * spectrum[:, :-1].conj()
    surface = torch.fft.ifft2(cross / (cross.abs() + 1e-3 * cross.abs().mean())).real
    surface = torch.fft.fftshift(surface, dim=(-2, -1)).reshape(clips * (time - 1), height, width)
    flat = surface.flatten(1).argmax(1)
    rows, columns = flat // width, flat % width
    shifts = columns.float() - width // 2 + _parabola(surface, rows, columns)
    return shifts.reshape(clips, time - 1)


def _parabola(surface: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sub-pixel offset of the peak from its two horizontal neighbours."""
    index, width = torch.arange(len(surface), device=surface.device), surface.shape[-1]
    left = surface[index, rows, (columns - 1) % width]
    right = surface[index, rows, (columns + 1) % width]
    centre = surface[index, rows, columns]
    offset = (left - right) / (2 * (left - 2 * centre + right) - 1e-9)
    return offset.clamp(-0.5, 0.5)
