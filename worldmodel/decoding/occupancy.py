"""Decoder of the occupancy model: a state, then a sample of the discounted future."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.weights import for_decoding
from worldmodel.dynamics.occupancy.model import Occupancy
from worldmodel.dynamics.text import TextContext

ONE_FRAME = (
    "horizon: an occupancy model samples one frame of the discounted future of a state (or `stack` "
    "of them), and no video; ask for a horizon of as many time steps (horizon_s=stack/fps), or "
    "roll out a gpt"
)


class OccupancyDecoder(Decoder):
    """Samples of the discounted future of a state; `next_frame` gives the frames of a stack.

    Args:
        dtype: precision of the weights (see `for_decoding`).
    """

    def __init__(
        self, model: Occupancy, sampling: Sampling | None = None, dtype: str | None = None
    ) -> None:
        super().__init__(for_decoding(model.online, dtype), sampling)
        self.state_steps, self.sample_steps = model.state_steps, model.sample_steps

    def start(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        num_futures: int = 1,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> None:
        """As `FrameDecoder.start`; BadInput unless the prompt is a state."""
        if tokens.shape[1] != self.state_steps:
            raise BadInput(
                f"prompt_steps={tokens.shape[1]}: the state of this occupancy model has "
                f"{self.state_steps} frames; give a prompt of as many"
            )
        super().start(tokens, actions, num_futures, drop_actions, captions)

    @torch.inference_mode()
    def begin(self, action: Float[Tensor, "future action"] | None = None) -> None:
        """As `CachedDecoder.begin`; BadInput for a frame after the sample."""
        if self.tokens.shape[1] >= self.state_steps + self.sample_steps:
            raise BadInput(ONE_FRAME)
        super().begin(action)
