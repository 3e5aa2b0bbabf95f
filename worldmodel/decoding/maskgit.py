"""MaskGIT: samples all tokens of a frame at once, keeps the most certain, resamples the others.

Chang et al. 2022 (arXiv 2202.04200, section 3.2), for video as in GENIE of 1X. Attention over time
is causal, so keys and values of past frames are computed once. Each pass reads only the new frame.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.ranges import at_least, one_of
from worldmodel.decoding.base import Cells, RowDecoder
from worldmodel.decoding.config import WAYS, Sampling
from worldmodel.decoding.sampling import entropy, sample
from worldmodel.dynamics.masked.model import Masked
from worldmodel.dynamics.masked.space_time import TimeCache, empty_cache


class MaskGIT(RowDecoder):
    """Futures of a masked model, extended frame by frame.

    When the context is full, the oldest `slide_steps` frames are dropped. The others are read
    again, because their positions change.

    Args:
        sampling: `top_k` and `top_p` apply to each factor.
        num_steps: passes per frame. A pass that would settle no token is skipped.
        order: tokens that settle first: "random" (1X: the most certain tokens tend to copy the
            previous frame), or by "confidence", the probability of the sample.
        slide_steps: None: a quarter of the context.

    Raises:
        BadInput: an option out of range.
    """

    model: Masked

    def __init__(
        self,
        model: Masked,
        sampling: Sampling | None = None,
        num_steps: int = 2,
        order: str = "random",
        slide_steps: int | None = None,
    ) -> None:
        model = model.for_decoding()
        super().__init__(model, sampling, slide_steps)
        at_least(1, num_steps=num_steps)
        one_of(WAYS["order"], order=order)
        self.num_steps, self.order = num_steps, order
        self.cache: TimeCache
        self.seen: int  # frames in the cache

    @torch.inference_mode()
    def next_frame(
        self, action: Float[Tensor, "future action"] | None = None
    ) -> Int[Tensor, "future height width"]:
        """Sample the frame that follows, given the action in force before it."""
        self.begin(action)
        space = (self.layout.tokens_per_step,)
        uniform = self.chances(self.num_steps, len(self.model.factors.sizes), after=space)
        noise = self.chances(self.num_steps, after=space) if self.order == "random" else None
        return self.append(self.fill(uniform, noise))

    @torch.inference_mode()
    def predict(self, action: Float[Tensor, "future action"] | None = None) -> Cells:
        """As of every decoder, by the first pass: all cells at once, independent of each other."""
        self.begin(action)
        shape = len(self.tokens), self.layout.tokens_per_step
        factors = self.tokens.new_zeros(*shape, len(self.model.factors.sizes))
        logits = self.logits(factors, torch.ones_like(factors[..., 0], dtype=torch.bool))
        frame = yield self.model.factors.joint(logits), slice(0, shape[1])
        grid = frame.view(-1, self.layout.height, self.layout.width)
        self.tokens = torch.cat([self.tokens, grid[:, None]], dim=1)
        return grid

    @torch.inference_mode()
    def begin(self, action: Float[Tensor, "future action"] | None = None) -> None:
        """Read what came before the next frame; `fill` and `append` follow."""
        self.check_action(action)
        self._catch_up()
        self.join(action)

    def append(self, frame: Int[Tensor, "future space"]) -> Int[Tensor, "future height width"]:
        """Take a frame, sampled or real, for the one that came next."""
        grid = frame.view(self.num_futures, 1, self.layout.height, self.layout.width)
        self.tokens = torch.cat([self.tokens, self.both(grid)], dim=1)
        return grid[:, 0]

    @torch.inference_mode()
    def fill(
        self,
        uniform: Float[Tensor, "step factor future space"],
        noise: Float[Tensor, "draw future space"] | None = None,
    ) -> Int[Tensor, "future space"]:
        """The tokens of the next frame, after `begin`, from numbers drawn beforehand.

        Args:
            uniform: what `sample` inverts each factor's distribution function at.
            noise: tokens with the highest settle first; None: the most confident.
        """
        model = self.model
        rows, space = uniform.shape[2:]
        factors = self.tokens.new_zeros(rows, space, len(model.factors.sizes))
        masked = torch.ones(rows, space, dtype=torch.bool, device=factors.device)
        self._entropy = torch.zeros(rows, space, device=factors.device)
        for step, num_masked in schedule(self.num_steps, space):
            logits = self.logits(self.both(factors), self.both(masked))
            logits = self.guided(logits, slice(0, space))
            if self.measures_entropy:
                here = sum(entropy(part) for part in model.factors.parts(logits))
                self._entropy = torch.where(masked, here, self._entropy)
            drawn, confidence = self._draw(logits, uniform[step])
            factors = torch.where(masked[..., None], drawn, factors)
            if num_masked:
                order = confidence if noise is None else noise[step]
                least = order.masked_fill(~masked, torch.inf)
                least = least.argsort(dim=1, stable=True)[:, :num_masked]
                masked = torch.zeros_like(masked).scatter(1, least, True)
        return model.factors.join(factors)

    @torch.inference_mode()
    def logits(
        self, factors: Int[Tensor, "row space factor"], masked: Bool[Tensor, "row space"]
    ) -> Float[Tensor, "row space logit"]:
        """Logits of the partly masked next frame."""
        cells = self.model.embed_cells(factors[:, None], masked[:, None])
        return self.model.logits(self._pass(cells, self.tokens.shape[1]))[:, 0].float()

    def _draw(
        self,
        logits: Float[Tensor, "future space logit"],
        uniform: Float[Tensor, "factor future space"],
    ) -> tuple[Int[Tensor, "future space factor"], Float[Tensor, "future space"]]:
        """Sample every factor; return values and the probability of each token."""
        values, confidence = [], torch.ones_like(logits[..., 0])
        for part, level in zip(self.model.factors.parts(logits), uniform, strict=True):
            value = sample(part.flatten(0, 1), self.sampling, level.flatten()).view(level.shape)
            chosen = part.softmax(-1).gather(-1, value[..., None])
            confidence = confidence * chosen[..., 0]
            values.append(value)
        return torch.stack(values, dim=-1), confidence

    def _pass(
        self, cells: Float[Tensor, "row 1 space dim"], step: int
    ) -> Float[Tensor, "row 1 space dim"]:
        """One pass: run the frame of a time step after those in the cache."""
        model, before = self.model, self.tokens[:, step - 1 : step]
        acting = None
        if self.actions is not None:
            acting = model.embed_newest(self.actions, self.cache.length, self.drop_actions)
        past = model.embed_cells(model.factors.split(before.flatten(2)), None)
        text = self._text(step, step + 1)
        return model.read(model.prepare(cells, past, acting, text, self.cache.length), self.cache)

    def _text(self, start: int, stop: int) -> Float[Tensor, "row step 1 dim"] | None:
        """Caption vectors of these time steps."""
        return None if self.captions is None else self.model.text(self.captions, start, stop)

    @property
    def entropy(self) -> Float[Tensor, "future space"]:
        """Of the newest frame: of a token, the sum over its factors in the pass that settled it."""
        return self._entropy

    @property
    def frames_read(self) -> int:
        return self.cache.length + (self.seen < self.tokens.shape[1])

    def _catch_up(self) -> None:
        """Add the newest frame to the cache."""
        newest = self.seen < self.tokens.shape[1]
        if self.cache.length + newest == self.model.config.context_steps:
            self.read(self.cache.length + newest - self.slide_steps)
        elif newest:
            factors = self.model.factors.split(self.tokens[:, -1:].flatten(2))
            self._pass(self.model.embed_cells(factors, None), self.tokens.shape[1] - 1)
            self.cache.length += 1
        self.seen = self.tokens.shape[1]

    def read(self, num_steps: int) -> None:
        """Fill a fresh cache from the newest `num_steps` frames."""
        model, total = self.model, self.tokens.shape[1]
        tokens = self.tokens[:, total - num_steps :]
        acting = None
        if self.actions is not None:
            actions = self.actions[:, total - num_steps : total - 1]
            acting = model.embed_actions(actions, self.drop_actions)
        cells = model.embed_cells(model.factors.split(tokens.flatten(2)), None)
        self.cache = empty_cache(model.config, len(tokens), cells)
        text = self._text(total - num_steps, total)
        model.read(model.prepare(cells, cells[:, :-1], acting, text, 0), self.cache)
        self.cache.length, self.seen = num_steps, total


def schedule(num_steps: int, num_tokens: int) -> list[tuple[int, int]]:
    """Passes that settle a token, each with the count still masked: ceil(cos(pi k / 2N) S)."""
    left = [math.ceil(math.cos(k / num_steps * math.pi / 2) * num_tokens) for k in range(num_steps)]
    left.append(0)
    return [(k, left[k + 1]) for k in range(num_steps) if left[k + 1] < left[k]]
