"""taming-transformers' VQGAN with one codebook (MIT, github.com/CompVis/taming-transformers)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from drives.clips.preprocessing import Preprocessing
from tokenizer.published.averages import AVERAGED
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.vqgan_keys import architecture, codebook, opened
from training.errors import BadInput
from training.foreign.weights import read_file, state_dict

SHIFT = (0.485 / 0.229, 0.456 / 0.224, 0.406 / 0.225)  # ImageNet's means by its deviations


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


@dataclass(frozen=True)
class VideoOccupancy(Taming):
    """The same as Video Occupancy Models trained it (github.com/manantomar/video-occupancy-models).

    Its frames are x / 255 - mean / std of ImageNet, for a bracket is missing; it encodes those and
    decodes to those. So `Preprocessing` makes them, and the last convolution leads back.
    """

    image_size: Sequence[int] = (80, 80)

    def open(self, files: Sequence[Path]) -> OpenedTokenizer:
        """`cheetah_vq_vae_model.pth` or `walker_vq_vae_model.pth`; raises as `Taming`."""
        found, mean = super().open(files), torch.tensor(SHIFT)
        weight, bias = (f"decoder.conv_out.{name}" for name in ("weight", "bias"))
        back = {weight: 2 * found.weights[weight], bias: 2 * (found.weights[bias] + mean) - 1}
        shown = Preprocessing(value_range=(0.0, 1.0), mean=SHIFT)
        return found._replace(weights=found.weights | back, preprocessing=shown)


def one(files: Sequence[Path], name: str) -> Sequence[Path]:
    if len(files) != 1:
        raise BadInput(f"ckpt: {len(files)} files; {name} needs one")
    return files
