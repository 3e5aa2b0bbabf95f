"""Images and their grids of tokens: what all tokenizers have to say about sizes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from training.errors import BadInput


class GridConfig(ABC):
    """Base of the configs of tokenizers whose tokens lie on a grid of `downsampling` pixels."""

    image_size: Sequence[int]

    @property
    @abstractmethod
    def downsampling(self) -> int:
        """Pixels per token along each side."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(1, height, width) tokens of a step."""
        height, width = self.image_size
        return 1, height // self.downsampling, width // self.downsampling

    @property
    def tokens_per_frame(self) -> float:
        return float(math.prod(self.grid))

    def check_image_size(self, reason: str) -> None:
        """BadInput unless the image divides into the grid.

        Args:
            reason: what decides `downsampling`, for the message.
        """
        if len(self.image_size) != 2 or min(self.image_size) < 1 or self.downsampling < 1:
            raise BadInput(
                f"image_size={list(self.image_size)} with {self.downsampling} pixels per token: "
                f"give (height, width) and a size of tokens, all positive ({reason})"
            )
        if any(side % self.downsampling for side in self.image_size):
            raise BadInput(
                f"image_size={list(self.image_size)}: both sides must be multiples of "
                f"{self.downsampling} ({reason})"
            )

    def check_frames(self, frames: Tensor) -> None:
        """BadInput unless frames [..., h, w] have the size that the tokenizer was made for."""
        if tuple(frames.shape[-2:]) != tuple(self.image_size):
            raise BadInput(
                f"frames are {tuple(frames.shape[-2:])}, this tokenizer takes "
                f"{tuple(self.image_size)} (height, width)"
            )
