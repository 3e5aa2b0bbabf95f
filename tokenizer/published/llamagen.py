"""LlamaGen's VQ (MIT, github.com/FoundationVision/LlamaGen), also VaViM's tokenizer.

Taming's VQGAN with low-dimensional codes of length 1, under other names.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drives.clips.preprocessing import Preprocessing
from tokenizer.networks.config import VQGANConfig
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.torchscript import is_torchscript, read_torchscript
from tokenizer.published.vqgan_keys import architecture, codebook, load
from training.errors import BadInput
from training.foreign.weights import Tensors, read_file, state_dict

# Where its training keeps the weights; its own scripts look in this order.
INSIDE = ("ema", "model", "state_dict")
LEFT_OUT = ("quantize.codebook_used",)  # the last codes that were chosen in training


@dataclass(frozen=True)
class LlamaGen:
    """Options of the adapter.

    Attributes:
        image_size: (height, width) of frames in pixels; VaViM's is (288, 512).
    """

    image_size: Sequence[int] = (256, 256)

    def open(self, files: Sequence[Path]) -> OpenedTokenizer:
        """LlamaGen's checkpoint, or VaViM's two TorchScript files, in any order.

        Raises:
            BadInput: no tensors by name, halves of two tokenizers, a half missing, or another
                family.
        """
        where = " and ".join(map(str, files))
        tensors: Tensors = {}
        for file in files:
            for key, tensor in _tensors(file).items():
                if key in tensors and not tensors[key].equal(tensor):
                    raise BadInput(
                        f"{where}: hold another {key} each; give halves of one tokenizer"
                    )
                tensors[key] = tensor
        shape = architecture(tensors, "llamagen", where)
        book = codebook(tensors, where, normalize=True, commitment_weight=0.25, codebook_weight=1.0)
        config = VQGANConfig(image_size=tuple(self.image_size), quantizer=book, **shape)
        weights, left_out = load(config, tensors, where, LEFT_OUT, layout="llamagen")
        return OpenedTokenizer(config, weights, Preprocessing(), left_out)


def _tensors(file: Path) -> Tensors:
    """Tensors of a file, without a wrapper's prefix in their names."""
    scripted = is_torchscript(file)
    tensors = read_torchscript(file) if scripted else state_dict(read_file(file), file, INSIDE)
    if not tensors:
        raise BadInput(f"{file}: holds no tensors by name; give the state dict it was made from")
    first = (re.fullmatch(r"(.*?)(encoder|decoder)\.conv_in\.weight", key) for key in tensors)
    wrapper = next((found[1] for found in first if found), "")
    return {key.removeprefix(wrapper): tensor for key, tensor in tensors.items()}
