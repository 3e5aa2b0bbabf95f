"""Reads PNG and JPEG files, checked before decoding."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from training.errors import BadInput

# Pillow opens dozens of formats, some with external programs; frames use only these.
FORMATS = ("PNG", "JPEG", "MPO")
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
# Exceptions of Pillow's plugins for damaged files, besides OSError.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """RGB pixels of an image file.

    Raises:
        BadInput: it cannot be decoded, or has more than `MAX_PIXELS`.
    """
    with _opened(path) as image:
        return np.asarray(image.convert("RGB"))


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header, without decoding; BadInput as in `read_image`."""
    with _opened(path) as image:
        return image.height, image.width


def check_sizes(paths: Sequence[Path]) -> tuple[int, int]:
    """(height, width) of all images, from their headers.

    Raises:
        BadInput: one cannot be read, or has another size than the first.
    """
    first = image_size(paths[0])
    for path in paths[1:]:
        size = image_size(path)
        if size != first:
            raise BadInput(
                f"{path}: is {size[0]}x{size[1]}, the first image {first[0]}x{first[1]}; "
                "give frames of one size"
            )
    return first


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:  # up to twice this, Pillow only warns
                raise ValueError(f"{image.width}x{image.height} are too many pixels")
            yield image
    except DAMAGE as error:
        raise BadInput(f"{path}: cannot be decoded ({error}); replace the file") from error
