"""What a world model knows of the newest frame, as one vector: input of a policy."""

import torch
from jaxtyping import Float
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding.base import RowDecoder
from worldmodel.decoding.cached import CachedDecoder
from worldmodel.decoding.whole_frame import KeyframesDecoder, WholeFrameDecoder


@torch.inference_mode()
def features_of(decoder: RowDecoder) -> Float[Tensor, "future dim"]:
    """Hidden states after the newest frame.

    Of a GPT the state of the last token. Of a whole-frame model the mean over the cells of the
    trunk's states for the next frame, as if the action went on: a pass over the context. A model
    that keeps keyframes reads others than the newest frames, so it gives none.

    Raises:
        BadInput: a model of another kind.
    """
    if isinstance(decoder, CachedDecoder):
        states = decoder.state[:, -1]
    elif isinstance(decoder, WholeFrameDecoder) and not isinstance(decoder, KeyframesDecoder):
        states = _of_trunk(decoder)
    else:
        raise BadInput(
            f"observation=features: a {type(decoder.model).__name__} gives none; take pixels or "
            "tokens"
        )
    return states[: decoder.num_futures].float()


def _of_trunk(decoder: WholeFrameDecoder) -> Float[Tensor, "row dim"]:
    model, limit = decoder.model, decoder.context_steps
    num = min(decoder.frames_read, limit - 1)
    # A place for the next frame; its own tokens are not read.
    tokens = torch.cat([decoder.tokens[:, -num:], decoder.tokens[:, -1:]], 1)
    actions = None
    if decoder.actions is not None:
        rows = decoder.actions[:, max(0, decoder.actions.shape[1] + 1 - num) :]
        none = rows.new_zeros(len(rows), 1, rows.shape[2])
        actions = torch.cat([rows, rows[:, -1:] if rows.shape[1] else none], 1)
    x = model.embed_clip(tokens, actions, decoder.drop_actions)
    acting = model.acting(actions, decoder.drop_actions, num + 1)
    return model.trunk(x, None, acting)[:, -1].mean(1)
