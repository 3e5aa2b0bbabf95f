"""Reads PNG and JPEG files, checked before decoding."""

import io
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from training.errors import BadInput

# Pillow opens dozens of formats, some with external programs; frames use only these.
FORMATS = ("PNG", "JPEG", "MPO")
ORIENTATION = 0x0112  # EXIF; from 5 on, height and width change places
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
    """RGB pixels of an image file as a viewer shows it: turned, 16 bits scaled to 8.

    Raises:
        BadInput: it cannot be decoded, has transparent pixels or more than `MAX_PIXELS`.
    """
    with _opened(path) as image:
        return _as_shown(image)


def decode_image(content: bytes, where: str) -> UInt8[np.ndarray, "height width 3"]:
    """RGB pixels of an image file's content; BadInput as in `read_image`, with `where` for it."""
    with _opened(io.BytesIO(content), where) as image:
        return _as_shown(image)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) as shown, from the header, without decoding; BadInput as in `read_image`."""
    with _opened(path) as image:
        on_side = image.format != "PNG" and image.getexif().get(ORIENTATION, 1) >= 5
        return (image.width, image.height) if on_side else (image.height, image.width)


def _turned(image: Image.Image) -> Image.Image:
    # For the orientation of a PNG, Pillow would decode it to know its size; viewers ignore it.
    return image if image.format == "PNG" else ImageOps.exif_transpose(image)


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Image files in the order of the numbers in their names: 9.png before 10.png.

    Raises:
        BadInput: two names differ only in zeros or in their ending.
    """
    places: dict[tuple[str | int, ...], Path] = {}
    for path in paths:
        # Text and numbers alternate, so that keys can be compared.
        parts = re.split(r"(\d+)", path.stem)
        place = tuple(int(part) if i % 2 else part for i, part in enumerate(parts))
        if place in places:
            both = sorted((places[place].name, path.name))
            raise BadInput(f"{path.parent}: {both[0]} and {both[1]} are one number; drop one")
        places[place] = path
    return [places[place] for place in sorted(places)]


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


def _as_shown(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to white
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise ValueError("it has transparent pixels: flatten it onto a background")
    return np.asarray(_turned(image).convert("RGB"))


@contextmanager
def _opened(source: Path | IO[bytes], where: object = None) -> Iterator[Image.Image]:
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:  # up to twice this, Pillow only warns
                raise ValueError(f"{image.width}x{image.height} are too many pixels")
            yield image
    except DAMAGE as error:
        raise BadInput(
            f"{where or source}: cannot be decoded ({error}); replace the file"
        ) from error
