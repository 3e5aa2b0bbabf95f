"""Decoder of the whole-frame model with keyframes."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.decoding.config import Sampling
from worldmodel.decoding.whole_frame import WholeFrameDecoder
from worldmodel.dynamics.keyframes.model import Keyframes, between


class KeyframesDecoder(WholeFrameDecoder):
    """Futures of a `Keyframes`, extended frame by frame.

    The distance of a keyframe to the next frame grows with every frame, so no key or value can be
    kept: the trunk reads its whole context, of keyframes and newest frames, once per frame.
    """

    model: Keyframes

    def __init__(self, model: Keyframes, sampling: Sampling | None = None) -> None:
        super().__init__(model, sampling)

    @torch.inference_mode()
    def states(self) -> Float[Tensor, "row space dim"]:
        """Read the context of the next frame; return its trunk states."""
        model, drop = self.model, self.drop_actions
        places = model.config.places(self.tokens.shape[1] + 1)
        # The next frame has a place and no tokens; the last place is not read.
        known = torch.cat([self.tokens, self.tokens[:, -1:]], 1)[:, places]
        rows = None if self.actions is None else between(self.actions, places)
        acting = model.acting(rows, drop, len(places))
        self.acting = None if acting is None else acting[:, -1:]
        return model.trunk(model.embed_clip(known, rows, drop), None, acting)[:, -1]

    def read(self, num_steps: int) -> None:
        """There is nothing to keep."""
        self.cache = self._cache(0, len(self.tokens), 0)
