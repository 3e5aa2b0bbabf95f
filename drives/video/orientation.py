"""Frames as a player shows them: turned and mirrored as the container says (its display matrix)."""

from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from jaxtyping import UInt8

ONE = 1 << 16  # the matrix holds fixed-point numbers with 16 bits behind the point


def upright(
    picture: UInt8[np.ndarray, "height width 3"], frame: av.VideoFrame
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """The decoded picture of a frame as it is shown.

    The matrix sends a coded point (x, y) to (a x + c y, b x + d y) (ISO 14496-12, 8.3.2).

    Raises:
        ValueError: the turn is no multiple of 90 degrees.
    """
    a, b, c, d = matrix(frame)
    if (a, b, c, d) == (1, 0, 0, 1):
        return picture
    if abs(a) == abs(d) == 1 and b == c == 0:
        right, down = a, d
    elif abs(b) == abs(c) == 1 and a == d == 0:
        picture, right, down = picture.transpose(1, 0, 2), c, b
    else:
        raise ValueError("is shown turned by no multiple of 90 degrees; re-encode it upright")
    return np.ascontiguousarray(picture[:: round(down), :: round(right)])


def is_on_its_side(frame: av.VideoFrame) -> bool:
    """Whether height and width change places when the frame is shown."""
    return abs(matrix(frame)[1]) == 1


def matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """a, b, c, d of the display matrix; the identity where the container has none."""
    held: Any = frame.side_data  # PyAV's stub knows motion vectors only
    data = held.get(Type.DISPLAYMATRIX)
    if data is None:
        return 1, 0, 0, 1
    values = np.frombuffer(bytes(data), "<i4") / ONE
    return values[0], values[1], values[3], values[4]
