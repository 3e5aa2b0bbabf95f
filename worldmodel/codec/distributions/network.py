"""A world model as a predictor: its decoder's logits, frame by frame."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from training.errors import BadInput
from worldmodel.codec.distributions.predictors import Guesses, Predictor
from worldmodel.codec.exact import numbers
from worldmodel.codec.exact.attention import MOST_POSITIONS
from worldmodel.codec.exact.cache import NarrowCache, RoundedCache
from worldmodel.codec.exact.mode import ExactArithmetic
from worldmodel.decoding.base import RowDecoder
from worldmodel.decoding.cached import CachedDecoder
from worldmodel.decoding.rollout import open_decoder
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.dynamics.kinds import describe
from worldmodel.dynamics.occupancy.model import Occupancy
from worldmodel.dynamics.whole_frame.model import WholeFrame

# The number changes with any result of the arithmetic: those of before decode their containers.
CACHES: dict[str, type[RoundedCache]] = {"exact 2": RoundedCache, "exact 3": NarrowCache}
EXACT = "exact 3"  # what codes
ROWS = 2  # of a window that are read at once


class NetworkPredictor(Predictor):
    """Every kind that `open_decoder` decodes, by its decoder: raster, whole frame, inner layers.

    A masked model predicts with its first pass.

    Args:
        arithmetic: of `CACHES`, or "float".
        slide_steps: frames that leave a full context at once; None: as the decoder chooses.

    Raises:
        BadInput: the model reads captions, or predicts no next frame.
    """

    def __init__(self, network: Dynamics, arithmetic: str, slide_steps: int | None = None) -> None:
        if network.reads_text:
            raise BadInput("ckpt: reads captions, which the codec does not keep; use another model")
        if isinstance(network, Occupancy):
            raise BadInput("ckpt: predicts the discounted future, not the next frame; use another")
        self.exact: ExactArithmetic | None = None
        decoder = open_decoder(network.float(), slide_steps=slide_steps)
        assert isinstance(decoder, RowDecoder)  # every kind's own choice is one
        if arithmetic in CACHES:
            # Others spend little time in attention, and keep their finer integers.
            small = isinstance(network, GPT) and network.num_positions <= MOST_POSITIONS
            decoder.new_cache = CACHES[arithmetic] if small else RoundedCache
            self.exact = ExactArithmetic(decoder.model, way=decoder.new_cache.way)
            if isinstance(decoder, CachedDecoder):
                decoder.rows_at_once = ROWS
            self.foresees = isinstance(network, GPT) or type(network) is WholeFrame
        self.decoder, self.vocab_size = decoder, network.spec.vocab_size
        self.reads_actions = network.conditioned

    def start(self, frames: np.ndarray, actions: np.ndarray | None) -> None:
        tokens = torch.from_numpy(frames.astype(np.int64)).flatten(1, -2)[:, None]
        with self.arithmetic():
            self.decoder.start(tokens, self._given(actions))

    def predict(self, action: np.ndarray | None) -> Guesses:
        cells = self.decoder.predict(self._given(action))
        with self.arithmetic():
            logits, which = next(cells)
        while True:
            tokens = yield self._probs(logits), which
            with self.arithmetic():
                try:
                    logits, which = cells.send(torch.from_numpy(np.array(tokens, np.int64)))
                except StopIteration:
                    return

    def known(self, frames: np.ndarray, actions: np.ndarray | None) -> Iterator[np.ndarray]:
        """A pass over the windows in which the decoder would read these frames."""
        context, slide = self.decoder.context_steps, self.decoder.slide_steps
        tokens = torch.from_numpy(frames.astype(np.int64)).flatten(1, -2)[None]
        acting = self._given(actions)
        first, begin = 0, 1
        while begin < len(frames):
            stop = min(first + context, len(frames))
            rows = None if acting is None else acting[None, first : stop - 1]
            with self.arithmetic():
                logits = self._forced(tokens[:, first:stop], rows, begin - first)[0]
            yield from (self._probs(own) for own in logits)
            first, begin = stop - (context - slide), stop

    def _forced(self, tokens: Tensor, actions: Tensor | None, first: int) -> Tensor:
        """Logits [row step cell vocab] of the frames from `first` on."""
        model = self.decoder.model
        if isinstance(model, GPT):
            cells = first * model.layout.tokens_per_step
            flat = model(tokens, actions, head_fn=lambda x, _: model.logits(x[:, cells:]))
            return flat.unflatten(1, (tokens.shape[1] - first, -1))
        found: Tensor = model(tokens, actions)[:, first:]
        return found

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """In which the network computes."""
        with torch.inference_mode():
            if self.exact is None:
                yield
            else:
                with self.exact:
                    yield

    def _probs(self, logits: Tensor) -> np.ndarray:
        exact = self.exact is not None
        probs = numbers.softmax(logits) if exact else logits.double().softmax(-1)
        found: np.ndarray = probs.numpy()
        return found

    def _given(self, actions: np.ndarray | None) -> Tensor | None:
        if not self.reads_actions or actions is None:
            return None
        return torch.from_numpy(np.array(actions))  # a store's rows may not be written


def network_hash(network: Dynamics) -> str:
    """sha256 over the configuration, and every parameter and table of a network."""
    total = hashlib.sha256(json.dumps(describe(network.config), sort_keys=True).encode())
    # Tables are computed where the network is built, with that machine's cosine and logarithm.
    ranges = {"low": network.layout.low.float(), "high": network.layout.high.float()}
    held = {**dict(network.named_parameters()), **dict(network.named_buffers()), **ranges}
    for name, value in sorted(held.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        total.update(content.numpy().tobytes())
    return total.hexdigest()
