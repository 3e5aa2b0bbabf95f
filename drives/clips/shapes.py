"""Checks that frames of drives have the size and the aspect of a network.

It reads headers alone, before anything is decoded.
"""

from collections.abc import Sequence

from drives.clips.config import FITS
from drives.drive import Drive
from training.errors import BadInput
from training.ranges import one_of

MOST_CUT = 0.02  # of a frame's width or height; less is rounding


def judge_sizes(
    drives: Sequence[Drive],
    image_size: Sequence[int],
    fit: str,
    setting: str,
    remedy: str = "",
) -> None:
    """Compare the frames of drives with (height, width) in pixels; prints what is scaled.

    Args:
        fit: "same" refuses frames of another aspect; "cover" scales them to cover `image_size`
            and cuts the sides off.
        setting: the name of `fit` on the command line.
        remedy: another way to a network for these drives; may name {size}.

    Raises:
        BadInput: frames of another aspect, and `fit` is "same".
    """
    one_of(FITS, **{setting: fit})
    height, width = image_size
    for (rows, columns), drive in {drive.frame_size: drive for drive in reversed(drives)}.items():
        if (rows, columns) in ((height, width), (0, 0)):  # zeros: no decoder is known
            continue
        cut = 1 - min(rows * width / (columns * height), columns * height / (rows * width))
        are = f"{drive.path}: frames are {rows}x{columns} (height x width)"
        if cut > MOST_CUT and fit == "same":
            size = f"[{height},{round(height * columns / rows)}]"
            raise BadInput(
                f"{are}, image_size is {height}x{width}, another aspect: {cut:.0%} of each would "
                f"be cut off; {remedy.format(size=size)}or allow that: {setting}=cover"
            )
        lost = f"; {cut:.0%} of each is cut off" if cut > MOST_CUT else ""
        print(f"note: {are} and are scaled to {height}x{width}{lost}")
