"""Decoding of the whole-frame kind: its trunk runs once per frame and keeps what it has read."""

import copy
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding.base import FrameDecoder
from worldmodel.decoding.sampling import Sampling, sample
from worldmodel.dynamics.attention import KVCache
from worldmodel.dynamics.whole_frame import WholeFrame


class WholeFrameDecoder(FrameDecoder):
    """A running set of futures of a `WholeFrame`.

    Without inner layers a frame is one pass, all cells drawn at once. With them the cells are
    drawn in raster order by the inner layers alone, against a cache of their own frame.

    When the context is full, the oldest `slide_steps` frames are dropped and the others are read
    in anew, because their positions change; the default drops a quarter of the context.

    Args:
        slide_steps: 1 (always the longest context, slowest) to context_steps - 1.
    """

    def __init__(
        self, model: WholeFrame, sampling: Sampling | None = None, slide_steps: int | None = None
    ) -> None:
        limit = model.config.context_steps
        self.slide_steps = max(1, limit // 4) if slide_steps is None else slide_steps
        if not 1 <= self.slide_steps < limit:
            raise BadInput(f"slide_steps={slide_steps}; give 1 to {limit - 1} (context_steps - 1)")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.sampling = sampling or Sampling()
        self.generator = torch.Generator().manual_seed(self.sampling.seed)
        self.cache: KVCache

    @torch.inference_mode()
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
        time, limit = tokens.shape[1], self.model.config.context_steps
        if not 1 <= time <= limit:
            raise BadInput(f"a prompt of {time} frames; the model reads 1 to {limit}: shorten it")
        if num_futures < 1:
            raise BadInput(f"num_futures={num_futures}; give 1 or more")
        self.model.layout.check(tokens, actions)
        past = actions[:, : time - 1] if self.model.conditioned and actions is not None else None
        self.tokens, self.actions, self.drop_actions = tokens, past, drop_actions
        self._read(time)
        self.cache = self.cache.expand(num_futures)
        self.tokens = tokens.repeat_interleave(num_futures, dim=0)
        if past is not None:
            self.actions = past.repeat_interleave(num_futures, dim=0)
        if drop_actions is not None:
            self.drop_actions = drop_actions.repeat_interleave(num_futures, dim=0)

    @torch.inference_mode()
    def next_frame(
        self, action: Float[Tensor, "row action"] | None = None
    ) -> Int[Tensor, "row height width"]:
        """Sample the frame that follows, given the action in force before it."""
        layout, rows = self.model.layout, len(self.tokens)
        if self.actions is not None:
            if action is None or action.shape != (rows, layout.num_actions):
                raise BadInput(
                    f"next_frame needs actions [{rows}, {layout.num_actions}], "
                    f"got {None if action is None else tuple(action.shape)}"
                )
            self.actions = torch.cat([self.actions, action[:, None]], dim=1)
        states = self.states()
        uniform = torch.rand(layout.tokens_per_step, rows, generator=self.generator)
        uniform = uniform.to(self.tokens.device)
        if self.model.config.inner_layers:
            frame = torch.stack(list(self._cells(states, uniform)), dim=1)
        else:
            logits = self.model.logits(states).float().flatten(0, 1)
            frame = sample(logits, self.sampling, uniform.t().flatten())
        grid = frame.view(rows, layout.height, layout.width)
        self.tokens = torch.cat([self.tokens, grid[:, None]], dim=1)
        return grid

    @torch.inference_mode()
    def states(self) -> Float[Tensor, "row space dim"]:
        """Read the newest frame and action: the trunk's states of the cells of the next frame."""
        limit = self.model.config.context_steps
        if self.cache.length == limit:
            self._read(limit - self.slide_steps)
        x = self.model.embed_frames(self.tokens[:, -1:])
        if self.actions is not None:
            x = x + self.model.embed_actions(self.actions[:, -1:], self.drop_actions)[:, :, None]
        return self.model.trunk_step(self.model.placed(x, self.cache.length), self.cache)

    def _cells(
        self, states: Float[Tensor, "row space dim"], uniform: Float[Tensor, "space row"]
    ) -> Iterator[Int[Tensor, " row"]]:
        """The cells of a frame in raster order, by the inner layers."""
        model, space, blocks = self.model, states.shape[1], self.model.inner_blocks
        cache = self._cache(len(blocks), len(states), space)
        x = states[:, :1]
        for cell in range(space):
            for layer, block in enumerate(blocks):
                x = block.step(x, cache, layer)
            cache.length += 1
            token = sample(model.logits(x)[:, 0].float(), self.sampling, uniform[cell])
            yield token
            if cell + 1 < space:
                answer = torch.cat([states[:, cell], model.embed(token)], dim=-1)
                x = states[:, cell + 1 : cell + 2] + model.told(answer)[:, None]

    def _read(self, num_steps: int) -> None:
        """Fill a fresh cache from the newest `num_steps` frames."""
        model, start = self.model, self.tokens.shape[1] - num_steps
        actions = None
        if self.actions is not None:  # the newest may already be that of the frame that comes
            actions = self.actions[:, start : start + max(num_steps - 1, 0)]
        x = model.embed_clip(self.tokens[:, start:], actions, self.drop_actions)
        over_time = model.config.num_layers // 2
        self.cache = self._cache(over_time, len(x) * x.shape[2], model.config.context_steps)
        model.trunk(x, self.cache)
        self.cache.length = num_steps

    def _cache(self, num_layers: int, batch: int, num_slots: int) -> KVCache:
        config, weight = self.model.config, self.model.embed.weight
        head_dim = config.dim // config.num_heads
        return KVCache(
            num_layers, batch, config.num_heads, num_slots, head_dim, weight.dtype, weight.device
        )
