"""Whole drives through a video tokenizer, in batches of any size, as though they were one clip."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenizer.causal_conv import Past
from tokenizer.video_autoencoder import VideoAutoencoder


def encode_stream(
    network: VideoAutoencoder, batches: Iterable[Float[Tensor, "n 3 h w"]]
) -> Iterator[Int[Tensor, "steps gh gw"]]:
    """Tokens of a drive's consecutive frames, as soon as they are complete.

    The first frame makes the first token grid, every `frames_per_step` further ones the next;
    what remains at the end (fewer than a step) makes none.
    """
    past, factor = Past(), network.config.frames_per_step
    waiting: Tensor | None = None
    for batch in batches:
        frames = batch if waiting is None else torch.cat([waiting, batch])
        first = 0 if past.begun else 1
        usable = (len(frames) - first) // factor * factor + first
        waiting = frames[max(0, usable) :]
        if usable > 0:
            yield network.encode(frames[:usable], past)


def decode_stream(
    network: VideoAutoencoder, batches: Iterable[Int[Tensor, "steps gh gw"]]
) -> Iterator[Float[Tensor, "n 3 h w"]]:
    """Frames in [-1, 1] of a drive's consecutive token grids: one of the first, then several."""
    past = Past()
    for tokens in batches:
        yield network.decode(tokens, past)
