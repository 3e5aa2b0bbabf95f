"""PSNR of one future frame, 1X's second challenge: the 77th of a clip of 512x512 pixels.

17 frames and the robot's states of 77 frames are given.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8

from drives.clips.preprocessing import to_pixels
from tokenizer.metrics import psnr
from training.errors import BadInput

FRAME, SIZE = 77, 512


def named_frame_psnr(
    pred: UInt8[np.ndarray, "*pred"],
    real: UInt8[np.ndarray, "*real"],
    frame: int = FRAME,
    size: int | None = SIZE,
) -> Float[np.ndarray, " clip"]:
    """PSNR in dB of the `frame`-th frame (the first is 1) of every clip; equal frames have 100.

    Args:
        pred, real: clips [clip time height width 3] in RGB.
        size: height and width that the challenge asks for; None takes any.

    Raises:
        BadInput: clips of different shapes, of other sizes, or too short.
    """
    if pred.shape != real.shape or pred.ndim != 5:
        raise BadInput(f"clips of shapes {pred.shape} and {real.shape}; give two alike")
    if size is not None and pred.shape[2:4] != (size, size):
        raise BadInput(
            f"frames of {pred.shape[2]}x{pred.shape[3]} pixels; the challenge has {size}x{size}, "
            "and PSNR at another size is another number"
        )
    if not 1 <= frame <= pred.shape[1]:
        raise BadInput(f"frame={frame}: the clips have {pred.shape[1]} frames; give longer ones")
    a, b = (to_pixels(torch.from_numpy(x[:, frame - 1]).movedim(-1, 1)) for x in (pred, real))
    return psnr(a, b).double().numpy()
