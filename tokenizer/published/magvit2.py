"""1X's image tokenizer, an Open-MAGVIT2 (Apache-2.0, github.com/1x-technologies/1xgpt)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizer.published.opened import Opened
from tokenizer.published.taming import one
from tokenizer.published.vqgan_keys import architecture, load
from tokenizer.quantizers import LFQConfig
from tokenizer.transforms import Preprocessing
from tokenizer.vqgan import VQGANConfig
from training.errors import BadInput
from training.foreign_weights import Tensors, read_file, state_dict

AVERAGED = "model_ema."
NOT_WEIGHTS = ("model_ema.decay", "model_ema.num_updates")


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

    def open(self, files: Sequence[Path]) -> Opened:
        """A Lightning checkpoint, or a flat state dict.

        Raises:
            BadInput: not one file, no averaged weights where they are asked for, or another family.
        """
        if self.weights not in ("raw", "ema"):
            raise BadInput(f"weights={self.weights}: use raw or ema")
        (file,) = one(files, "magvit2")
        tensors = state_dict(read_file(file), file)
        shape = architecture(tensors, "magvit2", str(file))
        config = VQGANConfig(
            image_size=tuple(self.image_size),
            quantizer=LFQConfig(shape["z_channels"], bit_order=self.bit_order),
            **shape,
        )
        if self.weights == "ema":
            tensors = averaged(tensors, str(file))
        weights, left_out = load(config, tensors, str(file), ("loss.", AVERAGED, "raw "))
        return Opened(config, weights, Preprocessing(), left_out)


def averaged(tensors: Tensors, where: str) -> Tensors:
    """The averages in the places of the weights, which are renamed "raw ...".

    An average is named by its weight's name without dots.

    Raises:
        BadInput: the checkpoint holds no averages, or one of no weight.
    """
    plain = {k: v for k, v in tensors.items() if not k.startswith(AVERAGED)}
    short = {AVERAGED + key.replace(".", ""): key for key in plain}
    assert len(short) == len(plain), "two weights share one dotless name"
    means = {k: v for k, v in tensors.items() if k.startswith(AVERAGED) and k not in NOT_WEIGHTS}
    if not means:
        raise BadInput(f"{where}: holds no averaged weights ({AVERAGED}*); use weights=raw")
    unknown = sorted(set(means) - set(short))
    if unknown:
        raise BadInput(f"{where}: holds averages of no weight: {', '.join(unknown)}")
    kept = {key: v for key, v in tensors.items() if key in NOT_WEIGHTS}
    return {
        **kept,
        **{f"raw {key}": tensor for key, tensor in plain.items()},
        **{short[key]: tensor for key, tensor in means.items()},
    }
