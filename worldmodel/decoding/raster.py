"""Autoregressive decoding in raster order with a key-value cache, many futures at once."""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding.base import RowDecoder
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.quantized import Int8Cache, Int8Linear
from worldmodel.decoding.sampling import sample
from worldmodel.decoding.weights import weight_bytes
from worldmodel.dynamics.attention import Words
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.gpt.model import GPT, Block
from worldmodel.dynamics.text import TextContext

# Tokens for some cells of the open frame, given their logits [row cell vocab].
Choose = Callable[[Tensor, slice | Tensor], Tensor]


class Decoder(RowDecoder):
    """A running set of futures of a GPT.

    When the context is full, the oldest `slide_steps` frames leave it, in one of two ways:

    - "slide": the others are read in anew. What follows is exactly what the model says about the
      frames in sight. By default a quarter of the context leaves at once, which spreads the cost
      of reading over many frames.
    - "roll": the others stay in the cache as they are, and time goes on counting. Rotary
      attention depends on distances alone, so every layer attends exactly as in training, to the
      frames in sight; but their keys and values were computed when older frames still were in
      sight, and carry what those told them. By default one frame leaves at a time. Nothing is
      ever read twice, and the longest context is always in sight.

    Args:
        model: read as it is; pass it through `for_decoding` first for speed.
        slide_steps: 1 (always the longest context) to context_steps - 1.
        window: "slide" or "roll".

    Raises:
        BadInput: another window, a number of steps out of range, or "roll" with learned or
            sinusoidal positions, which tell more than distances.
    """

    model: GPT

    def __init__(
        self,
        model: GPT,
        sampling: Sampling | None = None,
        slide_steps: int | None = None,
        window: str = "slide",
    ) -> None:
        if window not in ("slide", "roll"):
            raise BadInput(f"window={window!r}; choose slide or roll")
        if window == "roll" and (model.config.positions != "rope" or model.config.sinusoid):
            raise BadInput(
                "window=roll: this model learned where in its context a slot stands, and no place "
                "beyond; use window=slide, or train with positions=rope alone"
            )
        if window == "roll" and model.layout.lead_length:
            raise BadInput("window=roll: the start token would leave first; use window=slide")
        self.window = window
        own_choice = 1 if window == "roll" else None
        super().__init__(model, sampling, slide_steps, own_choice)
        self.blocks = cast(list[Block], list(model.blocks))
        self.cache: KVCache
        self.heard: TextContext | None  # by cross-attention
        self.state: Tensor  # what the blocks made of the newest slot
        self.ahead: Tensor  # logits of the token after the newest one

    @torch.inference_mode()
    def start(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        num_futures: int = 1,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> None:
        """As `FrameDecoder.start`."""
        self.hold(tokens, actions, num_futures, drop_actions, captions)
        self._read_text()
        self._read(tokens.shape[1])
        self.cache = self.cache.expand(num_futures)
        self.ahead = self.ahead.repeat_interleave(num_futures, dim=0)
        self.state = self.state.repeat_interleave(num_futures, dim=0)
        self.repeat(num_futures)
        self.heard = self.heard and self.heard.repeat(num_futures)

    @torch.inference_mode()
    def next_frame(
        self, action: Float[Tensor, "future action"] | None = None
    ) -> Int[Tensor, "future height width"]:
        """Sample the frame that follows, given the action in force before it."""
        self._draw_numbers()
        return self.extend(self.draw, action)[: self.num_futures]

    def draw(
        self, logits: Float[Tensor, "row cell vocab"], cells: slice | Tensor
    ) -> Int[Tensor, "row cell"]:
        """Draw some cells of the open frame, each with the number that was drawn for it."""
        logits, uniform = self.guided(logits, cells), self._uniform[:, cells].flatten()
        drawn = sample(logits.flatten(0, 1), self.sampling, uniform)
        return self.both(drawn.view(logits.shape[:2]))

    @torch.inference_mode()
    def score_next(
        self,
        frame: Int[Tensor, "future height width"],
        action: Float[Tensor, "future action"] | None = None,
    ) -> Float[Tensor, "future space"]:
        """Nats that this way to decode gives a real frame, with which it then goes on.

        The cross entropy of what is sampled, approximations included: what an approximate
        decoder costs is the difference to an exact one.
        """
        real = frame.flatten(1)
        nats = torch.empty(real.shape, device=real.device)

        def tell(logits: Tensor, cells: slice | Tensor) -> Tensor:
            logits = self.guided(logits, cells).mT.float()
            nats[:, cells] = F.cross_entropy(logits, real[:, cells], reduction="none")
            return self.both(real[:, cells])

        self._draw_numbers()  # a draft may guess by them
        self.extend(tell, action)
        return nats

    @torch.inference_mode()
    def extend(
        self, choose: Choose, action: Float[Tensor, "future action"] | None = None
    ) -> Int[Tensor, "row height width"]:
        """Append the frame whose tokens `choose` picks."""
        self.begin(action)
        frame = self.decode(choose)
        self.finish(frame)
        return frame.view(-1, self.layout.height, self.layout.width)

    @torch.inference_mode()
    def begin(self, action: Float[Tensor, "future action"] | None = None) -> None:
        """Note the action that leads to the next frame, make room and prepare its prefix.

        Args:
            action: None leaves it to a model that predicts actions.
        Raises:
            BadInput: the model reads actions and this is not one for every future.
        """
        imagines = action is None and self.model.predicts_actions
        if imagines and self.guidance is not None:
            raise BadInput("guidance needs every action given; decode imagined ones without it")
        if not imagines:
            self.check_action(action)
            self.join(action)
        if self.cache.length == self.model.num_slots:
            self._make_room()
        self._opened = self.cache.length
        self._turn = self.model.step_turns(self._step)
        self.words = self._words(self.tokens.shape[1], 1)
        said = self._said()
        if imagines:
            if said.shape[1]:
                self.feed(said)
            said, acted = said[:, :0], self._imagine_action()
        else:
            acted = self._acted()
        self._shared: Tensor | float = 0.0
        if self.layout.config.actions == "continuous":
            self._shared = acted
        if self.model.config.look_back:
            hints = self.model.hints(self.tokens[:, -1])
            acted = torch.cat([acted[:, :-1], acted[:, -1:] + hints[:, :1]], dim=1)
            self._shared = self._shared + F.pad(hints[:, 1:], (0, 0, 0, 1))
        self.prefix = torch.cat([said.to(acted.dtype), acted], dim=1)

    def decode(self, choose: Choose) -> Int[Tensor, "row space"]:
        """All tokens of the frame that was begun, all of them in the cache."""
        rows, space = len(self.tokens), self.layout.tokens_per_step
        frame = self.tokens.new_empty(rows, space)
        logits = self.open_frame()
        for cell in range(space):
            one = slice(cell, cell + 1)
            frame[:, one] = choose(logits, one)
            logits = self.feed(self.embed_cells(frame[:, one], one))
        return frame

    def open_frame(self) -> Float[Tensor, "row 1 vocab"]:
        """Feed the prefix of the frame that was begun; return the logits of its first token."""
        return self.feed(self.prefix)[:, -1:] if self.prefix.shape[1] else self.ahead[:, None]

    def finish(self, frame: Int[Tensor, "row space"]) -> None:
        """Close the frame."""
        grid = frame.view(-1, 1, self.layout.height, self.layout.width)
        self.tokens = torch.cat([self.tokens, grid], dim=1)
        self._step += 1

    def embed_cells(
        self, tokens: Int[Tensor, "row cell"], cells: slice | Tensor
    ) -> Float[Tensor, "row cell dim"]:
        """Slots that hold the tokens of these cells of the open frame."""
        shared = self._shared
        if isinstance(shared, Tensor) and shared.shape[1] > 1:
            shared = shared[:, cells]
        return self.model.embed(tokens) + shared

    @torch.inference_mode()
    def feed(
        self, x: Float[Tensor, "row new dim"], cells: Int[Tensor, " new"] | None = None
    ) -> Float[Tensor, "row new vocab"]:
        """Append embedded slots (without their positions); return the logits after each.

        Args:
            cells: the cells of the open frame that the slots hold, where they do not follow
                what was fed before.
        """
        model, first = self.model, self.cache.length - self._opened
        slots: slice | Tensor = slice(first, first + x.shape[1])
        if cells is not None:
            slots = self.layout.prefix_length + cells
        if model.config.positions != "rope":
            places = torch.arange(self._opened, model.num_slots, device=x.device)[slots]
            x = x + model.learned_positions(places)
        turn = None if self._turn is None else self._turn.at(slots)
        for layer, block in enumerate(self.blocks):
            x = block.step(x, turn, self.cache, layer, self.words[layer])
        self.cache.length += x.shape[1]
        logits = model.logits(x).float()
        self.state, self.ahead = x[:, -1:], logits[:, -1]
        return logits

    def _read_text(self) -> None:
        """What the layers that attend to captions make of each of them."""
        self.heard = self.model.heard(self.captions, len(self.tokens))
        text = self.heard and self.heard.all_words(self.layout.step_length)
        self.read_words = [
            b.cross_attention.read(text) if text and b.reads_text else None for b in self.blocks
        ]

    def _words(self, start: int, num_steps: int, lead: int = 0) -> list[Words | None]:
        """What every layer attends to in these time steps besides the slots."""
        if self.heard is None:
            return self.read_words
        said = self.heard.numbers(start, start + num_steps, lead)
        return [words and words.at(said, lead) for words in self.read_words]

    @property
    def bytes_per_token(self) -> int:
        """Bytes that drawing one token after another reads each time: weights and filled cache.

        The embedding tables give one row each and do not count; a tied head does.
        """
        return weight_bytes(self.model) + self.cache.num_bytes

    def _make_room(self) -> None:
        """Let the oldest frames leave a full context."""
        if self.window == "roll":
            self.cache.forget(self.layout.sequence_length(self.slide_steps))
        else:
            self._read(self.model.config.context_steps - self.slide_steps)

    def _read(self, num_steps: int) -> None:
        """Fill a fresh cache from the newest `num_steps` frames."""
        model = self.model
        self._step = num_steps
        tokens = self.tokens[:, self.tokens.shape[1] - num_steps :]
        actions = None if self.actions is None else _newest(self.actions, self.tokens, num_steps)
        captions = None
        if self.captions is not None:
            captions = self.captions.from_step(self.tokens.shape[1] - num_steps)
        x = model.embed_clip(tokens, actions, self.drop_actions, captions)
        self.cache = self._empty_cache(len(tokens))
        turn = model.turns(0, x.shape[1])
        lead = self.layout.lead_length
        words = self._words(self.tokens.shape[1] - num_steps, num_steps, lead)
        for layer, block in enumerate(self.blocks):
            x = block(x, turn, self.cache, layer, words[layer])
        self.cache.length = x.shape[1]
        self.state = x[:, -1:]
        self.ahead = model.logits(self.state)[:, 0].float()

    def _empty_cache(self, rows: int) -> KVCache:
        """Room for a full context of every row, in the precision of the weights."""
        model, config = self.model, self.model.config
        shape = config.num_layers, rows, config.kv_heads, model.num_slots, config.head_dim
        qkv = self.blocks[0].attention.qkv
        if isinstance(qkv, Int8Linear):
            return Int8Cache(*shape)
        dtype, device = qkv.weight.dtype, qkv.weight.device
        if device.type == "cpu":
            dtype = torch.float32  # a CPU reads a float32 cache faster than it converts bfloat16
        return KVCache(*shape, dtype, device)

    def _draw_numbers(self) -> None:
        """Draw the number that decides each token of the next frame."""
        space = self.layout.tokens_per_step
        uniform = torch.rand(space, self.num_futures, generator=self.generator)
        self._uniform = uniform.to(self.tokens.device).T

    def _said(self) -> Float[Tensor, "row word dim"]:
        """The embedded text slots of the next time step."""
        (rows, step), count = self.tokens.shape[:2], self.layout.config.text_tokens
        if self.captions is None or not count:
            return self.model.embed(self.tokens.new_full((rows, count), self.layout.no_text_id))
        return self.model.embed_text(self.captions, step, step + 1)[:, 0]

    def _acted(self) -> Float[Tensor, "row slot dim"]:
        """The embedded action slots of the next time step."""
        model, drop, rows = self.model, self.drop_actions, len(self.tokens)
        if self.actions is None:
            ids = self.tokens.new_full((rows, self.layout.action_slots), self.layout.no_action_id)
            return model.embed(ids)
        if self.layout.config.actions == "continuous":
            return model.embed_actions(self.actions[:, -1:], drop)
        return model.embed(self.layout.action_ids(self.actions[:, -1:], drop)[:, 0])

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


def _newest(actions: Tensor, tokens: Tensor, num_steps: int) -> Tensor:
    """Of actions known up to the frame that comes next, those between the newest frames."""
    start = tokens.shape[1] - num_steps
    return actions[:, start : start + max(num_steps - 1, 0)]
