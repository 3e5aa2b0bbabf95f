"""1X's image tokenizer, an early Open-MAGVIT2 (Apache-2.0, github.com/1x-technologies/1xgpt).

TencentARC's own files have another format: `open_magvit2`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizer.published.averages import LEFT_OUT, chosen
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.taming import one
from tokenizer.published.vqgan_keys import architecture, opened
from tokenizer.quantizers.config import LFQConfig
from training.foreign.weights import read_file, state_dict


@dataclass(frozen=True)
class Magvit2:
    """Options of the adapter.

    Attributes:
        image_size: (height, width) of frames in pixels.
        weights: "raw" (used by 1xgpt and for its data sets) or "ema".
        bit_order: "big": channel 0 is the most significant bit, as in its encoder; "little": the
            least significant, as in 1X's data sets.
    """

    image_size: Sequence[int] = (256, 256)
    weights: str = "raw"
    bit_order: str = "big"

    def open(self, files: Sequence[Path]) -> OpenedTokenizer:
        """A Lightning checkpoint, or a flat state dict.

        Raises:
            BadInput: not one file, no EMA weights for "ema", or another family.
        """
        (file,) = one(files, "magvit2")
        tensors = state_dict(read_file(file), file)
        shape = architecture(tensors, "magvit2", str(file))
        tensors = chosen(tensors, self.weights, str(file))
        book = LFQConfig(shape["z_channels"], bit_order=self.bit_order)
        return opened(self.image_size, book, shape, tensors, file, LEFT_OUT)
