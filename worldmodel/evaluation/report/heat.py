"""Cross entropy as heat over the cells of the frame."""

from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from worldmodel.conditioning.text_encoders import Texts
from worldmodel.dynamics.base import Dynamics
from worldmodel.windows import TokenClip

UNKNOWN = 90  # grey of cells that are not predicted


@torch.no_grad()
def nats_of_cells(
    network: Dynamics, clips: TokenClip, texts: Texts | None = None
) -> Float[Tensor, "clip time height width"]:
    """Teacher-forced cross entropy of every real token; NaN where a clip begins.

    Clips may exceed the context: beyond it, each frame sees at least half a context.
    """
    length, context = clips.tokens.shape[1], network.config.context_steps
    height, width = clips.tokens.shape[-2:]
    first = network.first_target_step
    result = torch.full(clips.tokens.shape, torch.nan, device=clips.tokens.device)
    known = first
    while known < length:
        end = min(length, max(context, known + context // 2))
        start = max(0, end - context)
        actions = clips.actions[:, start:end] if network.num_actions else None
        captions: dict[str, Any] = {}
        if texts and clips.text is not None:
            text = replace(clips.text, index=clips.text.index[:, start:end])
            captions = texts.caption_kwargs(text, clips.tokens.device)
        nats = network.score(clips.tokens[:, start:end], actions, **captions).nats
        result[:, known:end] = nats[:, known - start :].unflatten(-1, (-1, height, width)).mean(2)
        known = end
    return result.cpu()


def heat_frames(
    values: Float[Tensor, "clip time height width"], bright: float
) -> UInt8[np.ndarray, "clip time height width 3"]:
    """One pixel per cell, dark at 0 and brightest from `bright` on."""
    colours = matplotlib.colormaps["inferno"](np.nan_to_num(values.numpy()) / bright, bytes=True)
    unknown = np.isnan(values.numpy())[..., None]
    frames: np.ndarray = np.where(unknown, np.uint8(UNKNOWN), colours[..., :3])
    return frames
