"""commaVQ's frame tokenizer: two flat state dicts (MIT, github.com/commaai/commavq)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from drives.clips.preprocessing import COMMA_CAMERA
from tokenizer.networks.config import VQGANConfig
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.vqgan_keys import CODEBOOK, architecture, codebook, load
from training.errors import BadInput
from training.foreign.weights import Tensors, read_file, state_dict
from training.ranges import one_of

FILES = "encoder_pytorch_model.bin,decoder_pytorch_model.bin"


@dataclass(frozen=True)
class CommaVQ:
    """Options of the adapter.

    Attributes:
        image_size: (height, width) of frames in pixels.
        crop: "comma" crops frames of comma's road camera as in the published tokens; "cover" takes
            the largest crop of that aspect, for other cameras.
    """

    image_size: Sequence[int] = (128, 256)
    crop: str = "comma"

    def open(self, files: Sequence[Path]) -> OpenedTokenizer:
        """Both halves, in any order; both hold the codebook, which must be equal.

        Raises:
            BadInput: not two files, not these halves, or halves of two tokenizers.
        """
        one_of(("comma", "cover"), crop=self.crop)
        if len(files) != 2:
            raise BadInput(f"ckpt: {len(files)} files; commavq needs two: {FILES}")
        where = " and ".join(str(file) for file in files)
        halves = dict(_half(file) for file in files)
        if len(halves) != 2:
            raise BadInput(f"{where}: are both the {next(iter(halves))}; commavq needs {FILES}")
        tensors = _join(halves, where)
        config = VQGANConfig(
            image_size=tuple(self.image_size),
            quantizer=codebook(tensors, where),
            **architecture(tensors, "taming", where),
        )
        weights, left_out = load(config, tensors, where)
        window = COMMA_CAMERA.window if self.crop == "comma" else ()
        preprocessing = replace(COMMA_CAMERA, window=window, antialias=self.crop == "cover")
        return OpenedTokenizer(config, weights, preprocessing, left_out)


def _half(file: Path) -> tuple[str, Tensors]:
    tensors = state_dict(read_file(file), file)
    names = {"quant_conv.weight": "encoder", "post_quant_conv.weight": "decoder"}
    found = [half for key, half in names.items() if key in tensors]
    if len(found) != 1:
        raise BadInput(f"{file}: is neither the encoder nor the decoder of commaVQ; give {FILES}")
    return found[0], tensors


def _join(halves: dict[str, Tensors], where: str) -> Tensors:
    """Both halves under taming's names."""
    books = [half.pop("quantize._embedding.weight", None) for half in halves.values()]
    if books[0] is None or books[1] is None:
        raise BadInput(f"{where}: quantize._embedding.weight is missing; give the published files")
    if not torch.equal(books[0], books[1]):
        raise BadInput(f"{where}: their codebooks differ; give both halves of one tokenizer")
    tensors = {CODEBOOK: books[0]}
    for half, own in halves.items():
        for key, tensor in own.items():
            common = key.startswith(("quant_conv.", "post_quant_conv."))
            tensors[key if common else f"{half}.{key}"] = tensor
    return tensors
