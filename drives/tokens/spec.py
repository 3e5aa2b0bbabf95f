"""Meaning of the integers of a token store."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drives.clips.preprocessing import Preprocessing
from training.errors import BadInput
from training.ranges import at_least, one_of, positive

BIT_ORDERS = ("", "little", "big")


@dataclass(frozen=True)
class TokenSpec:
    """Meaning of the integers of a store.

    Attributes:
        grid: (T', H', W') tokens of one token step.
        vocab_size: number of different tokens; values are 0 .. vocab_size - 1.
        fps: frame rate of the encoded frames: token steps per second times `frames_per_step`.
        frames_per_step: frames that one token step stands for (1 for image tokenizers).
        image_size: (height, width) in pixels of a decoded frame.
        tokenizer: sha256 of the tokenizer, or the name of a published one.
        factors: factor sizes of a factorised vocabulary; their product is `vocab_size`.
        bit_order: "little" or "big" for binary (LFQ) codes, else "".
        preprocessing: applied to a recorded frame before encoding.

    Raises:
        BadInput: a value that no tokens can have.
    """

    grid: tuple[int, int, int]
    vocab_size: int
    fps: float
    frames_per_step: int
    image_size: tuple[int, int]
    tokenizer: str
    factors: tuple[int, ...] = ()
    bit_order: str = ""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        positive(fps=self.fps)
        at_least(1, grid=self.grid, image_size=self.image_size, factors=self.factors)
        at_least(1, vocab_size=self.vocab_size, frames_per_step=self.frames_per_step)
        one_of(BIT_ORDERS, bit_order=self.bit_order)
        if self.factors and math.prod(self.factors) != self.vocab_size:
            raise BadInput(f"factors={self.factors}: their product is not {self.vocab_size}")
        if not self.tokenizer:
            raise BadInput("tokenizer='': name what made the tokens")

    @property
    def tokens_per_step(self) -> int:
        return int(np.prod(self.grid))

    @property
    def step_s(self) -> float:
        """Seconds of a token step."""
        return self.frames_per_step / self.fps

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "TokenSpec":
        """The spec as a manifest holds it.

        Raises:
            TypeError: a field is missing or unknown.
            BadInput: a value that no tokens can have.
        """
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        if "preprocessing" in fields:
            fields["preprocessing"] = Preprocessing.from_dict(fields["preprocessing"])
        return TokenSpec(**fields)


def check_tokens(tokens: np.ndarray, spec: TokenSpec, where: str) -> None:
    """BadInput unless the tokens are integers of the spec's grid, inside its vocabulary."""
    shape = frame_shape(spec)
    if not np.issubdtype(tokens.dtype, np.integer):
        raise BadInput(f"{where}: tokens are {tokens.dtype}; give integers")
    if tokens.shape[1:] != shape:
        raise BadInput(
            f"{where}: token grid is {tokens.shape[1:]}, but the tokenizer has {shape}; "
            "is this another tokenizer's store?"
        )
    low, high = (int(tokens.min()), int(tokens.max())) if tokens.size else (0, 0)
    if low < 0 or high >= spec.vocab_size:
        bad = low if low < 0 else high
        step = int(np.argwhere(tokens == bad)[0][0])
        raise BadInput(
            f"{where}: step {step} holds token {bad}, outside the vocabulary "
            f"0..{spec.vocab_size - 1}; is this another tokenizer's store?"
        )


def frame_shape(spec: TokenSpec) -> tuple[int, ...]:
    """Sides of a time step's tokens as a store keeps them: without T' where it is 1."""
    return spec.grid[1:] if spec.grid[0] == 1 else spec.grid
