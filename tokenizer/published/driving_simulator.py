"""Driving_Simulator's FSQ-VQGAN (github.com/fabP258/Driving_Simulator)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.taming import one
from tokenizer.published.vqgan_keys import architecture, opened
from tokenizer.quantizers.config import FSQConfig
from training.errors import BadInput
from training.foreign.weights import read_file, shape_of, state_dict


@dataclass(frozen=True)
class DrivingSimulator:
    """Options of the adapter.

    Attributes:
        image_size: (height, width) of frames in pixels.
        levels: levels of its FSQ; (): from the checkpoint's hyper-parameters.
    """

    image_size: Sequence[int] = (288, 512)
    levels: Sequence[int] = ()

    def open(self, files: Sequence[Path]) -> OpenedTokenizer:
        """The project's own checkpoint, or a flat state dict and `levels`.

        Raises:
            BadInput: not one file, levels that are unknown or do not fit, or another family.
        """
        (file,) = one(files, "driving_simulator")
        values = read_file(file)
        tensors = state_dict(values, file)
        shape = architecture(tensors, "taming", str(file))
        noted = values.get("hparams")
        levels = self.levels or (noted.get("fsq_levels", ()) if isinstance(noted, dict) else ())
        if not levels:
            raise BadInput(f"{file}: does not say its fsq_levels; give levels=[8,8,8,6,5]")
        if shape_of(tensors, "quant_conv.weight", str(file), 4)[0] != len(levels):
            raise BadInput(f"{file}: quant_conv does not lead to the {len(levels)} levels {levels}")
        book = FSQConfig(tuple(levels))
        return opened(self.image_size, book, shape, tensors, file, ("loss.",))
