"""Feeds a GPT during decoding: prefixes and tokens go in, the cache keeps keys and values."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from training.errors import BadInput
from training.ranges import one_of
from training.watch.free_threads import FreeThreads
from worldmodel.decoding.base import RowDecoder
from worldmodel.decoding.config import WAYS, Sampling
from worldmodel.decoding.native.build import SPLIT
from worldmodel.decoding.native.pages import in_large_pages
from worldmodel.decoding.native.step import NativeStep
from worldmodel.decoding.quantized import TILE, Int8Cache, Int8Linear
from worldmodel.decoding.sampling import sample
from worldmodel.dynamics.actions.layers import UNMOVED
from worldmodel.dynamics.attention import TextKV
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.gpt.model import GPT, Block
from worldmodel.dynamics.gpt.one_position import ROW, OnePosition, Unrecordable
from worldmodel.dynamics.positions import Rope
from worldmodel.dynamics.shared_cache import SharedCache
from worldmodel.dynamics.text import TextContext


class CachedDecoder(RowDecoder):
    """Feeds a GPT frame by frame; the cache keeps the keys and values of its context.

    When the context is full, the oldest `slide_steps` frames leave it, in one of two ways:

    - "slide": the decoder recomputes the cache of the other frames. The result is exact for the
      frames in the context. By default a quarter of the context leaves at once, which spreads
      the cost over many frames.
    - "roll": the cache keeps the other frames unchanged, and time keeps counting. RoPE depends
      on distances only, so every layer attends as in training. But the kept keys and values
      still depend on the frames that left. By default one frame leaves at a time. Nothing is
      read twice, and the context always has its full length.

    Args:
        model: used unchanged; `for_decoding` makes a faster one.
        slide_steps: 1 (longest context) to context_steps - 1.
        window: "slide" or "roll".

    Attributes:
        fixed_shapes: whether single positions run as a CUDA graph does; on a GPU they do.
        compiled: whether those are compiled too.
        rows_at_once: rows of a window that are read at once; None: all. Few stay in a CPU's cache.
        threads: sets the number of threads before every pass.
        native: computes the passes over few positions, on a CPU.

    Raises:
        BadInput: an unknown window, slide_steps out of range, or "roll" with learned or
            sinusoidal positions, which depend on more than distances.
    """

    model: GPT
    compiled = False
    rows_at_once: int | None = None
    threads: FreeThreads | None = None
    native: NativeStep | None = None

    def __init__(
        self,
        model: GPT,
        sampling: Sampling | None = None,
        slide_steps: int | None = None,
        window: str = "slide",
    ) -> None:
        one_of(WAYS["window"], window=window)
        if window == "roll" and (model.config.positions != "rope" or model.config.sinusoid):
            raise BadInput(
                "window=roll: this model learned where in its context a token stands, and no place "
                "beyond; use window=slide, or train with positions=rope alone"
            )
        if window == "roll" and model.layout.lead_length:
            raise BadInput("window=roll: the start token would leave first; use window=slide")
        self.window = window
        own_choice = 1 if window == "roll" else None
        super().__init__(model, sampling, slide_steps, own_choice)
        self.blocks = cast(list[Block], list(model.blocks))
        self.cache: KVCache
        self.fixed_shapes = next(model.parameters()).is_cuda
        self._one: OnePosition | None = None
        self.modulations = [UNMOVED] * len(self.blocks)  # by the action of the open frame
        self.text_context: TextContext | None  # for cross-attention
        self.state: Tensor  # hidden state of the newest position
        self.next_logits: Tensor  # logits of the next token

    def read_prompt(self) -> None:
        self._read_text()
        super().read_prompt()

    @property
    def frames_read(self) -> int:
        return min(self._step, self.context_steps)  # a cache that rolls counts on

    def repeat(self, num_futures: int) -> None:
        super().repeat(num_futures)
        self._repeat_read(num_futures)
        self.text_context = self.text_context and self.text_context.repeat(num_futures)

    def _repeat_read(self, num_futures: int) -> None:
        self.next_logits = self.next_logits.repeat_interleave(num_futures, dim=0)
        self.state = self.state.repeat_interleave(num_futures, dim=0)

    def _cache_for(self, num_futures: int) -> KVCache:
        """The prompt once for all futures; graphs, and a cache of another kind, need its copies."""
        if self.fixed_shapes or type(self.cache) not in (KVCache, Int8Cache):
            return self.cache.expand(num_futures)
        unit = TILE if isinstance(self.cache, Int8Cache) else 1
        cache = SharedCache(self.cache, num_futures, unit if self.native is None else SPLIT)
        if self.native is not None:
            for part in cache.own.parts:
                in_large_pages(part)
        return cache

    @torch.inference_mode()
    def begin(self, action: Float[Tensor, "future action"] | None = None) -> None:
        """Open the next frame: store its action, make room, prepare its prefix.

        Args:
            action: None samples it from a model that predicts actions.
        Raises:
            BadInput: the model reads actions and a future has none.
        """
        imagines = action is None and self.model.predicts_actions
        if imagines and self.guidance is not None:
            raise BadInput("guidance needs every action given; decode imagined ones without it")
        if not imagines:
            self.check_action(action)
            self.join(action)
        if self.cache.length == self.model.num_positions:
            self._make_room()
        self._opened = self.cache.length
        self._rope = self.model.step_rope(self._step)
        self.text_kv = self._text_kv(self.tokens.shape[1], 1)
        text = self._text_prefix()
        if imagines:
            if text.shape[1]:
                self.feed(text)
            text, action_prefix = text[:, :0], self._imagine_action()
        else:
            action_prefix = self._action_prefix()
        # Added to the frame's tokens in the order in which `embed_clip` adds them.
        self._shared: list[Tensor] = []
        if self.layout.config.actions == "continuous":
            self._shared.append(action_prefix)
            self.modulations = [block.modulation(action_prefix) for block in self.blocks]
        if self.model.config.look_back:
            hints = self.model.hints(self.tokens[:, -1])
            last = action_prefix[:, -1:] + hints[:, :1]
            action_prefix = torch.cat([action_prefix[:, :-1], last], dim=1)
            self._shared.append(F.pad(hints[:, 1:], (0, 0, 0, 1)))
        self.prefix = torch.cat([text.to(action_prefix.dtype), action_prefix], dim=1)

    def open_frame(self) -> Float[Tensor, "row 1 vocab"]:
        """Feed the prefix of the open frame; return the logits of its first token."""
        return self.feed(self.prefix)[:, -1:] if self.prefix.shape[1] else self.next_logits[:, None]

    def finish(self, frame: Int[Tensor, "row space"]) -> None:
        """Close the frame."""
        grid = frame.view(-1, 1, self.layout.height, self.layout.width)
        self.tokens = torch.cat([self.tokens, grid], dim=1)
        self._step += 1

    def embed_cells(
        self, tokens: Int[Tensor, "row cell"], cells: slice | Tensor
    ) -> Float[Tensor, "row cell dim"]:
        """Input embeddings of these cells of the open frame."""
        x: Tensor = self.model.embed(tokens)
        for shared in self._shared:
            x = x + (shared[:, cells] if shared.shape[1] > 1 else shared)
        return x

    @torch.inference_mode()
    def feed(
        self, x: Float[Tensor, "row new dim"], cells: Int[Tensor, " new"] | None = None
    ) -> Float[Tensor, "row new vocab"]:
        """Append embeddings (without position embedding); return the logits after each.

        Args:
            cells: their cells of the open frame, if they do not follow the last one fed.
        """
        if self.threads is not None:
            self.threads.settle()
        model, first = self.model, self.cache.length - self._opened
        positions: slice | Tensor = slice(first, first + x.shape[1])
        if cells is not None:
            positions = self.layout.prefix_length + cells
        if model.config.positions != "rope":
            absolute = torch.arange(self._opened, model.num_positions, device=x.device)[positions]
            x = x + model.learned_positions(absolute)
        rope = None if self._rope is None else self._rope.at(positions)
        x, logits = self._passed(x, rope, alone=x.shape[1] == 1 and cells is None)
        self.cache.length += x.shape[1]
        self.state, self.next_logits = x[:, -1:], logits[:, -1]
        return logits

    def _passed(self, x: Tensor, rope: Rope | None, alone: bool) -> tuple[Tensor, Tensor]:
        """Last hidden states and logits of new positions, now in the cache."""
        if self.native is not None and self.native.takes(x, self.cache):
            x = self.native(x, rope, self.cache)
            return x, self.model.logits(x).float()
        alone = alone and not torch.is_autocast_enabled()  # a graph outlives what autocast casts
        if self.fixed_shapes and alone and type(self.cache) is KVCache:
            if self._one is None or self._one.cache is not self.cache:
                self._one = OnePosition(self.model, self.cache, self.compiled)
            try:
                x, logits = self._one(x, rope, self.text_kv, self.modulations)
                return x.clone(), logits.clone()
            except Unrecordable as why:
                print(f"note: single positions run without a CUDA graph, so slower ({why})")
                self.fixed_shapes, self._one = False, None
        per_layer = zip(self.blocks, self.text_kv, self.modulations, strict=True)
        for layer, (block, text, by) in enumerate(per_layer):
            x = block.step(x, rope, self.cache, layer, text, by)
        return x, self.model.logits(x).float()

    def _read_text(self) -> None:
        """Compute keys and values of every caption, in every layer with cross-attention."""
        self.text_context = self.model.text_context(self.captions, len(self.tokens))
        text = self.text_context and self.text_context.all_text(self.layout.step_length)
        self.all_text_kv = [
            b.cross_attention.text_kv(text) if text and b.reads_text else None for b in self.blocks
        ]

    def _text_kv(self, start: int, num_steps: int, lead: int = 0) -> list[TextKV | None]:
        """Keys and values of the captions of these time steps, for every layer."""
        if self.text_context is None:
            return self.all_text_kv
        index = self.text_context.text_index(start, start + num_steps, lead)
        return [kv and kv.at(index, lead) for kv in self.all_text_kv]

    def _make_room(self) -> None:
        """Drop the oldest frames of a full context."""
        if self.window == "roll":
            self.cache.forget(self.layout.sequence_length(self.slide_steps))
        else:
            self.read(self.model.config.context_steps - self.slide_steps)

    def read(self, num_steps: int) -> None:
        """Fill a fresh cache from the newest `num_steps` frames."""
        model = self.model
        self._step = num_steps
        alike = self._alike()
        tokens = self.tokens[::alike, self.tokens.shape[1] - num_steps :]
        actions, drop, captions = self.actions, self.drop_actions, self.captions
        if actions is not None:
            actions = _newest(actions[::alike], self.tokens, num_steps)
        if drop is not None:
            drop = drop[::alike]
        if captions is not None:
            captions = captions.from_step(self.tokens.shape[1] - num_steps)
        x = model.embed_clip(tokens, actions, drop, captions)
        acting = model.acting(actions, drop, num_steps)
        if self._one is not None and self._one.cache.keys.shape[1] == len(tokens):
            self.cache = self._one.cache  # a graph holds on to it
            self.cache.length = 0
        else:
            self.cache = self._empty_cache(len(tokens))
        rope = model.rope(0, x.shape[1])
        lead = self.layout.lead_length
        text_kv = self._text_kv(self.tokens.shape[1] - num_steps, num_steps, lead)
        count = len(x) if self.text_context else self.rows_at_once or len(x)
        states = []
        for first in range(0, len(x), count):
            rows = slice(first, first + count)
            part, cache = x[rows], self.cache if count >= len(x) else self.cache.rows(rows)
            by = None if acting is None else acting[rows]
            for layer, block in enumerate(self.blocks):
                part = block(part, rope, cache, layer, text_kv[layer], by)
            states.append(part[:, -1:])
        self.cache.length = x.shape[1]
        self.state = torch.cat(states)
        self.next_logits = model.logits(self.state)[:, 0].float()
        if alike > 1:
            self.cache = self._cache_for(alike)
            self._repeat_read(alike)

    def _alike(self) -> int:
        """How many rows in turn have read the same: the futures of a prompt, until they begin."""
        if self.tokens.shape[1] > self.prompt_steps or self.captions or self.text_context:
            return 1
        return self.futures_each

    def _empty_cache(self, rows: int) -> KVCache:
        """An empty cache for the full context, in the precision of the weights."""
        model, config = self.model, self.model.config
        positions = model.num_positions
        if self.fixed_shapes:
            positions += -positions % ROW
        shape = config.num_layers, rows, config.kv_heads, positions, config.head_dim
        qkv = self.blocks[0].attention.qkv
        if isinstance(qkv, Int8Linear):
            return Int8Cache(*shape)
        dtype, device = qkv.weight.dtype, qkv.weight.device
        if device.type == "cpu":
            dtype = torch.float32  # a CPU reads a float32 cache faster than it converts bfloat16
        cache = self.new_cache(*shape, dtype, device)
        if self.native is not None:
            for part in cache.parts:
                in_large_pages(part)
        return cache

    def _text_prefix(self) -> Float[Tensor, "row token dim"]:
        """Embedded text tokens of the next time step."""
        (rows, step), count = self.tokens.shape[:2], self.layout.config.text_tokens
        if self.captions is None or not count:
            return self.model.embed(self.tokens.new_full((rows, count), self.layout.no_text_id))
        return self.model.embed_text(self.captions, step, step + 1)[:, 0]

    def _action_prefix(self) -> Float[Tensor, "row position dim"]:
        """Embedded actions of the next time step."""
        model, drop, rows = self.model, self.drop_actions, len(self.tokens)
        if self.actions is None:
            ids = self.tokens.new_full(
                (rows, self.layout.num_action_positions), self.layout.no_action_id
            )
            return model.embed(ids)
        if self.layout.config.actions == "continuous":
            return model.embed_newest(self.actions, self._step, drop)
        return model.embed(self.layout.action_ids(self.actions[:, -1:], drop)[:, 0])

    def _imagine_action(self) -> Float[Tensor, "row 1 dim"]:
        """Sample the next action and feed all columns but the last; return that one embedded."""
        assert self.actions is not None
        count, rows = self.layout.num_actions, len(self.tokens)
        bins = self.tokens.new_zeros(rows, count)
        uniform = self.chances(count)
        for column in range(count):
            logits = self.model.action_logits(self.state, column).float()
            bins[:, column] = sample(logits, self.sampling, uniform[column])
            embedded = self.model.embed(self.layout.bin_ids(bins)[:, column : column + 1])
            if column < count - 1:
                self.feed(embedded)
        self.actions = torch.cat([self.actions, self.layout.bin_actions(bins)[:, None]], dim=1)
        return embedded


def _newest(actions: Tensor, tokens: Tensor, num_steps: int) -> Tensor:
    """The actions between the newest frames; the action of the next frame is left out."""
    start = tokens.shape[1] - num_steps
    return actions[:, start : start + max(num_steps - 1, 0)]
