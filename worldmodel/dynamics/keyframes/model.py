"""A whole-frame model with keyframes: a long past at the cost of a short one.

In a clip, the network reads the newest frames and a few older ones; see `KeyframesConfig`. It is
the plain network on those frames: the action of a step is the mean of the rows up to the next frame
that is read, and the embedding of a time step says where in the context it lies.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from worldmodel.dynamics.keyframes.config import KeyframesConfig
from worldmodel.dynamics.text import TextContext
from worldmodel.dynamics.whole_frame.model import WholeFrame


class Keyframes(WholeFrame):
    """Predicts a frame from the newest frames and from keyframes before them.

    Raises:
        BadInput: as of `WholeFrame`.
    """

    config: KeyframesConfig

    def forward(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> Float[Tensor, "batch time space vocab"]:
        """Logits of every token of every frame; arguments and errors as of `WholeFrame`.

        A pass predicts as many frames as the context has newest ones behind the first, so a long
        clip takes several. A frame sees 1 to `newest` - 1 frames right before it.
        """
        self.check(tokens, actions, captions)
        time, newest = tokens.shape[1], self.config.newest
        done = min(newest, time)
        logits = [self._read(tokens, actions, drop_actions, done)]
        while done < time:
            stop = min(done + newest - 1, time)
            logits.append(self._read(tokens, actions, drop_actions, stop)[:, done - stop :])
            done = stop
        return torch.cat(logits, 1)

    def loss(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross entropy of the newest frames that follow a frame, in one pass.

        Half of the batches in training have fewer keyframes, because a rollout begins with few.
        """
        self.check(tokens, actions, captions)
        if self.training:
            begin = self._left_out(tokens.shape[1])
            tokens = tokens[:, begin:]
            actions = None if actions is None else actions[:, begin:]
        stop = tokens.shape[1]
        logits = self._read(tokens, actions, drop_actions, stop)
        counted = max(1, min(stop - self.first_target_step, self.config.newest - 1))
        return self._token_nll(logits[:, -counted:], tokens[:, -counted:]).mean()

    def places(self, first_step: int, num_steps: int) -> list[int]:
        """As of `WholeFrame`; the frames lie where they would in a full context."""
        assert first_step == 0, "every context is read from its beginning"
        return self.config.times(num_steps)

    def flops(self, num_clips: int, num_steps: int, causal: bool = False) -> float:
        """As of `WholeFrame`, of the frames that are read."""
        return super().flops(num_clips, len(self.config.places(num_steps)), causal)

    def _left_out(self, time: int) -> int:
        """Frames at the beginning of a clip that this batch leaves out; drawn."""
        full = len(self.config.places(time)) - min(time, self.config.newest)
        drawn = int(torch.randint(2 * full, ())) if full else 0
        kept = drawn if drawn < full else full
        return (full - kept) * self.config.keyframe_every

    def _read(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None,
        drop_actions: Bool[Tensor, " batch"] | None,
        stop: int,
    ) -> Float[Tensor, "batch read space vocab"]:
        """Logits of the frames that are read of a context before frame `stop`."""
        places = self.config.places(stop)
        rows = None if actions is None else between(actions, places)
        return super().forward(tokens[:, places], rows, drop_actions)


def between(
    actions: Float[Tensor, "batch step action"], places: Sequence[int]
) -> Float[Tensor, "batch read action"]:
    """The mean of the rows from each of these frames to the next."""
    means = [actions[:, first:stop].mean(1) for first, stop in pairwise(places)]
    return torch.stack(means, 1) if means else actions[:, :0]
