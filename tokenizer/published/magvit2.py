"""1X's image tokenizer, an early Open-MAGVIT2 (Apache-2.0, github.com/1x-technologies/1xgpt).

TencentARC's own files are others: `open_magvit2`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drives.preprocessing import Preprocessing
from tokenizer.networks.config import VQGANConfig
from tokenizer.published.averages import LEFT_OUT, chosen
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.taming import one
from tokenizer.published.vqgan_keys import architecture, load
from tokenizer.quantizers.config import LFQConfig
from training.foreign.weights import read_file, state_dict


@dataclass(frozen=True)
class Magvit2:
    """How to open it.

    Attributes:
        image_size: (height, width) in pixels that it is used at.
        weights: "raw", which 1xgpt uses and its data sets were made with, or "ema", the average.
        bit_order: "big": channel 0 is the most significant bit, as its encoder counts; "little":
            the other way round, as in 1X's data sets.
    """

    image_size: Sequence[int] = (256, 256)
    weights: str = "raw"
    bit_order: str = "big"

    def open(self, files: Sequence[Path]) -> OpenedTokenizer:
        """A Lightning checkpoint, or a flat state dict.

        Raises:
            BadInput: not one file, no averaged weights where they are asked for, or another family.
        """
        (file,) = one(files, "magvit2")
        tensors = state_dict(read_file(file), file)
        shape = architecture(tensors, "magvit2", str(file))
        config = VQGANConfig(
            image_size=tuple(self.image_size),
            quantizer=LFQConfig(shape["z_channels"], bit_order=self.bit_order),
            **shape,
        )
        tensors = chosen(tensors, self.weights, str(file))
        weights, left_out = load(config, tensors, str(file), LEFT_OUT)
        return OpenedTokenizer(config, weights, Preprocessing(), left_out)
