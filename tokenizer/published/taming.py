"""taming-transformers' VQGAN with one codebook (MIT, github.com/CompVis/taming-transformers)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drives.preprocessing import Preprocessing
from tokenizer.networks.config import VQGANConfig
from tokenizer.published.averages import AVERAGED
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.vqgan_keys import architecture, codebook, load
from training.errors import BadInput
from training.foreign.weights import read_file, state_dict


@dataclass(frozen=True)
class Taming:
    """How to open it.

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
        config = VQGANConfig(
            image_size=tuple(self.image_size),
            quantizer=codebook(tensors, str(file)),
            **shape,
        )
        weights, left_out = load(config, tensors, str(file), ("loss.",))
        return OpenedTokenizer(config, weights, Preprocessing(), left_out)


def one(files: Sequence[Path], name: str) -> Sequence[Path]:
    if len(files) != 1:
        raise BadInput(f"ckpt: {len(files)} files; {name} needs one")
    return files
