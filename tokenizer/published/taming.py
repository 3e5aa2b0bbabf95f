"""taming-transformers' VQGAN with one codebook (MIT, github.com/CompVis/taming-transformers)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizer.published.averages import AVERAGED
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.vqgan_keys import architecture, codebook, opened
from training.errors import BadInput
from training.foreign.weights import read_file, state_dict


@dataclass(frozen=True)
class Taming:
    """Options of the adapter.

    Attributes:
        image_size: (height, width) of frames in pixels.
    """

    image_size: Sequence[int] = (256, 256)

    def open(self, files: Sequence[Path]) -> OpenedTokenizer:
        """A Lightning checkpoint, or a flat state dict.

        Raises:
            BadInput: not one file, another quantizer, or another family.
        """
        (file,) = one(files, "taming")
        tensors = state_dict(read_file(file), file)
        shape = architecture(tensors, "taming", str(file))
        if any(key.startswith(AVERAGED) for key in tensors):
            raise BadInput(
                f"{file}: holds averages ({AVERAGED}*), which taming's own files do not; IBQ's do, "
                "and choose their codes by another rule: give tokenizer=ibq"
            )
        book = codebook(tensors, str(file))
        return opened(self.image_size, book, shape, tensors, file, ("loss.",))


def one(files: Sequence[Path], name: str) -> Sequence[Path]:
    if len(files) != 1:
        raise BadInput(f"ckpt: {len(files)} files; {name} needs one")
    return files
