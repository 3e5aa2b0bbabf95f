"""Autoregressive decoding in raster order with a key-value cache, many futures at once."""

import copy
import itertools
from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from training.errors import BadInput
from worldmodel.decoding.base import FrameDecoder
from worldmodel.decoding.sampling import Sampling, sample
from worldmodel.dynamics.attention import KVCache, Text, Words
from worldmodel.dynamics.gpt import GPT, Block
from worldmodel.dynamics.text import TextContext


def for_decoding(model: GPT, dtype: torch.dtype | None = None) -> GPT:
    """A frozen copy of the model whose linear layers are stored for one-token steps.

    Decoding reads every weight once per token, so bytes are time. `dtype` lowers the linear
    layers alone (norms, embeddings and the residual stream stay as they are). Without it
    nothing is rounded. On a CPU, float32 weights are stored column by column, because its
    matrix-vector product reads them faster that way.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in model.blocks.modules():
        if not isinstance(module, nn.Linear):
            continue
        if dtype is not None:
            module.to(dtype)
        weight = module.weight
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            weight.data = weight.data.t().contiguous().t()
    if dtype is not None and not model.config.tie_embeddings:
        for module in model.head.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
    return model


class Decoder(FrameDecoder):
    """A running set of futures of a GPT.

    When the context is full, the oldest `slide_steps` frames are dropped and the others are
    read in anew, because their positions change. The default, a quarter of the context, keeps
    at least three quarters of it in sight and spreads the cost of re-reading over many frames.

    Args:
        model: read as it is; pass it through `for_decoding` first for speed.
        slide_steps: 1 (always the longest context, slowest) to context_steps - 1.
        text: what every example of the prompt is told, where the model reads a text.
    """

    def __init__(
        self,
        model: GPT,
        sampling: Sampling | None = None,
        slide_steps: int | None = None,
        text: Text | None = None,
    ) -> None:
        limit = model.config.context_steps
        self.slide_steps = max(1, limit // 4) if slide_steps is None else slide_steps
        if not 1 <= self.slide_steps < limit:
            raise BadInput(f"slide_steps={slide_steps}; give 1 to {limit - 1} (context_steps - 1)")
        self.model, self.sampling = model, sampling or Sampling()
        self.layout = model.layout
        self.blocks = cast(list[Block], list(model.blocks))
        self.cache: KVCache
        self.text = text
        self._shared: Tensor | float = 0.0
        self.state: Tensor  # what the blocks made of the newest slot
        self.imagines = False  # whether the model chooses the next action
        self.ahead: Tensor  # logits of the token after the newest one
        self.generator = torch.Generator().manual_seed(self.sampling.seed)

    @torch.inference_mode()
    def start(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        num_futures: int = 1,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> None:
        """Read the prompt once and open `num_futures` rows per example, example-major.

        Args:
            captions: what is said at every time step, those of the future included.
        Raises:
            BadInput: the prompt is empty, longer than the context, or of another shape.
        """
        time, limit = tokens.shape[1], self.model.config.context_steps
        if not 1 <= time <= limit:
            raise BadInput(f"a prompt of {time} frames; the model reads 1 to {limit}: shorten it")
        if num_futures < 1:
            raise BadInput(f"num_futures={num_futures}; give 1 or more")
        self.layout.check(tokens, actions)
        conditioned = self.layout.config.actions != "none"
        past = actions[:, : time - 1] if conditioned and actions is not None else None
        self.tokens, self.actions, self.drop_actions = tokens, past, drop_actions
        self.model.check_text(self.text, len(tokens))
        self.captions = captions
        self._read_text(1)
        self._read(tokens.shape[1])
        self.cache = self.cache.expand(num_futures)
        self.ahead = self.ahead.repeat_interleave(num_futures, dim=0)
        self.state = self.state.repeat_interleave(num_futures, dim=0)
        self._read_text(num_futures)
        self.tokens = tokens.repeat_interleave(num_futures, dim=0)
        if past is not None:
            self.actions = past.repeat_interleave(num_futures, dim=0)
        if drop_actions is not None:
            self.drop_actions = drop_actions.repeat_interleave(num_futures, dim=0)
        if captions is not None:
            self.captions = captions.repeat(num_futures)

    @torch.inference_mode()
    def next_frame(
        self, action: Float[Tensor, "row action"] | None = None
    ) -> Int[Tensor, "row height width"]:
        """Sample the frame that follows, given the action in force before it."""
        self.expect(action)
        rows, space = len(self.tokens), self.layout.tokens_per_step
        uniform = torch.rand(space, rows, generator=self.generator).to(self.tokens.device)
        logits = self.open_frame()
        frame = self.tokens.new_empty(rows, space)
        for i in range(space):
            frame[:, i] = sample(logits, self.sampling, uniform[i])
            logits = self.append(frame[:, i])
        return self.keep(frame)

    def expect(self, action: Float[Tensor, "row action"] | None) -> None:
        """Note the action that leads to the next frame, and make room for that frame.

        Args:
            action: None leaves it to a model that predicts actions.
        Raises:
            BadInput: the model reads actions and this is not one for every row.
        """
        self.imagines = action is None and self.model.predicts_actions
        if self.actions is not None and not self.imagines:
            if action is None or action.shape != (len(self.tokens), self.layout.num_actions):
                raise BadInput(
                    f"next_frame needs actions [{len(self.tokens)}, {self.layout.num_actions}], "
                    f"got {None if action is None else tuple(action.shape)}"
                )
            self.actions = torch.cat([self.actions, action[:, None]], dim=1)
        if self.cache.length == self.model.num_slots:
            self._read(self.model.config.context_steps - self.slide_steps)

    def keep(self, frame: Int[Tensor, "row space"]) -> Int[Tensor, "row height width"]:
        """End the open frame, whose tokens are all appended, and return it as a grid."""
        grid = frame.view(len(frame), self.layout.height, self.layout.width)
        self.tokens = torch.cat([self.tokens, grid[:, None]], dim=1)
        return grid

    @torch.inference_mode()
    def open_frame(self) -> Float[Tensor, "row vocab"]:
        """Feed the prefix of the next frame; return the logits of its first token."""
        if not self.layout.prefix_length:
            self._hints, self._shared = self._look_back(), 0.0
            return self.ahead
        for slot in self._said():
            self.feed(slot)
        *others, last = [self._imagine_action()] if self.imagines else self._prefix()
        self._hints = self._look_back()
        self._shared = last if self.layout.config.actions == "continuous" else 0.0
        for slot in others:
            self.feed(slot)
        return self.feed(last + next(self._hints))

    @torch.inference_mode()
    def append(self, token: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
        """Feed one token of the open frame; return the logits of the one after it."""
        return self.feed(self.model.embed(token[:, None]) + self._shared + next(self._hints))

    @torch.inference_mode()
    def feed(self, x: Float[Tensor, "row 1 dim"]) -> Float[Tensor, "row vocab"]:
        """Append one embedded slot (without its position); return logits of the next token."""
        model, slot = self.model, self.cache.length
        if model.config.positions != "rope":
            x = x + model.learned_positions(torch.tensor([slot], device=x.device))
        turn = model.turns(slot, slot + 1)
        for layer, block in enumerate(self.blocks):
            x = block.step(x, turn, self.cache, layer, self.words[layer])
        self.cache.length += 1
        self.state, self.ahead = x, model.logits(x)[:, 0].float()
        return self.ahead

    def _read_text(self, num_futures: int) -> None:
        """What every layer attends to besides the slots, for `num_futures` rows per example."""
        self.words: list[Words | None] = [None] * len(self.blocks)
        if self.text is None:
            return
        text = Text(*(part.repeat_interleave(num_futures, dim=0) for part in self.text))
        self.words = [b.cross_attention.read(text) if b.reads_text else None for b in self.blocks]

    def _read(self, num_steps: int) -> None:
        """Fill a fresh cache from the newest `num_steps` frames."""
        model = self.model
        tokens = self.tokens[:, self.tokens.shape[1] - num_steps :]
        actions = None if self.actions is None else _newest(self.actions, self.tokens, num_steps)
        captions = None
        if self.captions is not None:
            captions = self.captions.from_step(self.tokens.shape[1] - num_steps)
        x = model.embed_clip(tokens, actions, self.drop_actions, captions)
        dtype = self.blocks[0].attention.qkv.weight.dtype
        if x.device.type == "cpu":
            dtype = torch.float32  # a CPU reads a float32 cache faster than it converts bfloat16
        self.cache = KVCache(
            model.config.num_layers,
            len(tokens),
            model.config.kv_heads,
            model.num_slots,
            model.config.head_dim,
            dtype,
            x.device,
        )
        turn = model.turns(0, x.shape[1])
        for layer, block in enumerate(self.blocks):
            x = block(x, turn, self.cache, layer, self.words[layer])
        self.cache.length = x.shape[1]
        self.state = x[:, -1:]
        self.ahead = model.logits(self.state)[:, 0].float()

    def _look_back(self) -> Iterator[Tensor | float]:
        """What every slot is told of the frame before: cell 0 first, nothing for the last slot."""
        if not self.model.config.look_back:
            return itertools.repeat(0.0)
        hints = self.model.hints(self.tokens[:, -1])
        return itertools.chain(hints.split(1, dim=1), [0.0])

    def _prefix(self) -> list[Float[Tensor, "row 1 dim"]]:
        """The embedded action slots of the next time step."""
        model, drop, rows = self.model, self.drop_actions, len(self.tokens)
        if self.actions is None:
            ids = self.tokens.new_full((rows, 1), self.layout.no_action_id)
            return [model.embed(ids)]
        if self.layout.config.actions == "continuous":
            return [model.embed_actions(self.actions[:, -1:], drop)]
        x = model.embed(self.layout.action_ids(self.actions[:, -1:], drop)[:, 0])
        return list(x.split(1, dim=1))

    def _imagine_action(self) -> Float[Tensor, "row 1 dim"]:
        """Sample the next action; feed its columns but the last, which is returned embedded."""
        assert self.actions is not None
        count, rows = self.layout.num_actions, len(self.tokens)
        bins = self.tokens.new_zeros(rows, count)
        uniform = torch.rand(count, rows, generator=self.generator).to(self.tokens.device)
        for column in range(count):
            logits = self.model.action_logits(self.state, column).float()
            bins[:, column] = sample(logits, self.sampling, uniform[column])
            slot = self.model.embed(self.layout.bin_ids(bins)[:, column : column + 1])
            if column < count - 1:
                self.feed(slot)
        self.actions = torch.cat([self.actions, self.layout.bin_actions(bins)[:, None]], dim=1)
        return slot

    def _said(self) -> list[Float[Tensor, "row 1 dim"]]:
        """The embedded text slots of the next time step."""
        (rows, step), count = self.tokens.shape[:2], self.layout.config.text_tokens
        if self.captions is None:
            ids = self.tokens.new_full((rows, 1), self.layout.no_text_id)
            return [self.model.embed(ids)] * count if count else []
        x = self.model.embed_text(self.captions, step, step + 1, rows)[:, 0]
        return list(x.split(1, dim=1))


def _newest(actions: Tensor, tokens: Tensor, num_steps: int) -> Tensor:
    """Of actions known up to the frame that comes next, those between the newest frames."""
    start = tokens.shape[1] - num_steps
    return actions[:, start : start + max(num_steps - 1, 0)]
