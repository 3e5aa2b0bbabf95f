"""Decoders of the whole-frame models: a cached trunk runs once per frame, or a few frames anew."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.decoding.base import Cells, RowDecoder
from worldmodel.decoding.config import Sampling
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.keyframes.model import Keyframes, between
from worldmodel.dynamics.whole_frame.model import WholeFrame


class WholeFrameDecoder(RowDecoder):
    """Futures of a `WholeFrame`, extended frame by frame.

    Without inner layers, one pass samples all cells. With them, the inner layers sample cells in
    raster order, with a cache of their frame.

    When the context is full, the oldest `slide_steps` frames are dropped. The others are read
    again, because their positions change. By default a quarter of the context is dropped.

    Args:
        slide_steps: 1 (longest context, slowest) to context_steps - 1.
    """

    model: WholeFrame

    def __init__(
        self, model: WholeFrame, sampling: Sampling | None = None, slide_steps: int | None = None
    ) -> None:
        model = model.for_decoding()
        super().__init__(model, sampling, slide_steps)
        self.cache: KVCache
        self.acting: Tensor | None  # embedded action of the next frame

    @torch.inference_mode()
    def predict(self, action: Float[Tensor, "future action"] | None = None) -> Cells:
        self.check_action(action)
        self.join(action)
        states = self.states()
        if self.model.config.inner_layers:
            frame = yield from self._cells(states)
        else:
            frame = yield self.model.logits(states).float(), slice(0, states.shape[1])
        grid = frame.view(-1, self.layout.height, self.layout.width)
        self.tokens = torch.cat([self.tokens, grid[:, None]], dim=1)
        return grid

    @torch.inference_mode()
    def states(self) -> Float[Tensor, "row space dim"]:
        """Read the newest frame and action; return trunk states of the next frame."""
        if self.cache.length == self.context_steps:
            self.read(self.context_steps - self.slide_steps)
        x = self.model.embed_frames(self.tokens[:, -1:])
        self.acting = None
        if self.actions is not None:
            rows = self.cache.length  # a step before the first row
            embedded = self.model.embed_newest(self.actions, rows, self.drop_actions)
            x = x + embedded[:, :, None]
            self.acting = embedded
        if self.captions is not None:
            step = self.tokens.shape[1]
            x = x + self.model.text(self.captions, step, step + 1)
        x = self.model.with_positions(x, self.cache.length)
        return self.model.trunk_step(x, self.cache, self.acting)

    def _cells(self, states: Float[Tensor, "row space dim"]) -> Cells:
        """The cells of a frame in raster order, with the inner layers and a cache of the frame."""
        model, space, blocks = self.model, states.shape[1], self.model.inner_blocks
        cache = self._cache(len(blocks), len(states), space)
        modulations = [block.modulation(self.acting) for block in blocks]
        frame = self.tokens.new_empty(len(states), space)
        x = states[:, :1]
        for cell in range(space):
            for layer, block in enumerate(blocks):
                x = block.step(x, cache, layer, modulations[layer])
            cache.length += 1
            one = slice(cell, cell + 1)
            frame[:, one] = yield model.logits(x).float(), one
            if cell + 1 < space:
                gated = model.token_gate(states[:, cell], model.embed(frame[:, cell]))
                x = states[:, cell + 1 : cell + 2] + gated[:, None]
        return frame

    def read(self, num_steps: int) -> None:
        """Fill a fresh cache from the newest `num_steps` frames."""
        model, start = self.model, self.tokens.shape[1] - num_steps
        actions = None
        if self.actions is not None:  # without the action of the next frame
            actions = self.actions[:, start : start + max(num_steps - 1, 0)]
        captions = self.captions and self.captions.from_step(start)
        x = model.embed_clip(self.tokens[:, start:], actions, self.drop_actions, captions)
        acting = model.acting(actions, self.drop_actions, num_steps)
        over_time = model.config.num_layers // 2
        self.cache = self._cache(over_time, len(x) * x.shape[2], model.config.context_steps)
        model.trunk(x, self.cache, acting)
        self.cache.length = num_steps

    def _cache(self, num_layers: int, batch: int, num_positions: int) -> KVCache:
        config, weight = self.model.config, self.model.embed.weight
        shape = (num_layers, batch, config.num_heads, num_positions, config.dim // config.num_heads)
        return self.new_cache(*shape, weight.dtype, weight.device)


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

    @property
    def frames_read(self) -> int:
        return min(self.tokens.shape[1], self.context_steps)
