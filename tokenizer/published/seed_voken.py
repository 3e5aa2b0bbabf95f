"""TencentARC's image tokenizers (Apache-2.0, github.com/TencentARC/SEED-Voken).

Open-MAGVIT2 (Luo et al. 2024, arXiv 2409.04410) and IBQ (Shi et al. 2024, arXiv 2412.02692). Both
are published as Lightning checkpoints with EMA weights, which their authors evaluate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizer.published.averages import LEFT_OUT, chosen
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.taming import one
from tokenizer.published.vqgan_keys import architecture, codebook, opened
from tokenizer.quantizers.config import LFQConfig
from training.foreign.weights import read_file, state_dict


@dataclass(frozen=True)
class OpenMagvit2:
    """Options of the adapter.

    Attributes:
        image_size: (height, width) of frames in pixels.
        weights: "ema" (evaluated by its authors) or "raw".
    """

    image_size: Sequence[int] = (256, 256)
    weights: str = "ema"

    def open(self, files: Sequence[Path]) -> OpenedTokenizer:
        """A Lightning checkpoint, or a flat state dict.

        Raises:
            BadInput: not one file, no EMA weights for "ema", or another family.
        """
        (file,) = one(files, "open_magvit2")
        tensors = chosen(state_dict(read_file(file), file), self.weights, str(file))
        shape = architecture(tensors, "open_magvit2", str(file))
        book = LFQConfig(shape["z_channels"])
        return opened(self.image_size, book, shape, tensors, file, LEFT_OUT)


@dataclass(frozen=True)
class IBQ:
    """Options as those of `OpenMagvit2`.

    The network is taming's. The largest dot product chooses the code.
    """

    image_size: Sequence[int] = (256, 256)
    weights: str = "ema"

    def open(self, files: Sequence[Path]) -> OpenedTokenizer:
        """As `OpenMagvit2.open`."""
        (file,) = one(files, "ibq")
        tensors = chosen(state_dict(read_file(file), file), self.weights, str(file))
        shape = architecture(tensors, "taming", str(file))
        book = codebook(tensors, str(file), similarity="dot")
        return opened(self.image_size, book, shape, tensors, file, LEFT_OUT)
