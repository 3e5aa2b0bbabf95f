"""What every decoder does: read a prompt, then extend it frame by frame."""

from abc import ABC, abstractmethod

from jaxtyping import Bool, Float, Int
from torch import Tensor


class FrameDecoder(ABC):
    """A running set of futures, extended frame by frame; `rollout` is the short way."""

    @abstractmethod
    def start(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        num_futures: int = 1,
        drop_actions: Bool[Tensor, " batch"] | None = None,
    ) -> None:
        """Read the prompt once and open `num_futures` rows per example, example-major.

        Raises:
            BadInput: the prompt is empty, longer than the context, or of another shape.
        """

    @abstractmethod
    def next_frame(
        self, action: Float[Tensor, "row action"] | None = None
    ) -> Int[Tensor, "row height width"]:
        """Sample the frame that follows, given the action in force before it."""
