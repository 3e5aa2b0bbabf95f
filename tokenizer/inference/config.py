"""Settings of faster inference; imports no torch."""

from dataclasses import dataclass

from training.errors import BadInput
from training.ranges import at_least, one_of

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class InferenceConfig:
    """Inference settings; only `dtype` changes tokens by more than float32 rounding.

    Attributes:
        dtype: "float32" or "bfloat16" for weights and activations; codes stay float32.
        channels_last: keep the channels of a pixel together in memory.
        fold: merge nearest-neighbour upsampling and the next 3x3 convolution into one transposed
            convolution, with 16 multiplications instead of 36.
        winograd: compute 3x3 convolutions with 64 to 256 channels by Winograd's algorithm, and
            residual blocks in fewer passes over memory; for CPUs, in float32. The convolutions
            have about three times the rounding error.
        frames_at_once: frames of a batch that encoder and decoder compute at once; 0: all. Use it
            for large frames on CPUs: above about 32 MB of activations (a frame of commaVQ has
            17), each layer allocates new memory, which costs as much as the layer.
        compile: torch.compile encoder and decoder; the first batch of every size takes minutes.
    """

    dtype: str = "float32"
    channels_last: bool = True
    fold: bool = True
    winograd: bool = False
    frames_at_once: int = 0
    compile: bool = False

    def __post_init__(self) -> None:
        one_of(DTYPES, dtype=self.dtype)
        at_least(0, frames_at_once=self.frames_at_once)
        if self.winograd and self.dtype != "float32":
            raise BadInput(f"winograd=true: needs dtype=float32, not {self.dtype}")


# Settings as in training; folding affects only decoders.
AS_TRAINED = InferenceConfig(channels_last=False, fold=False)
