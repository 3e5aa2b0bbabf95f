"""Rollouts of a world model of any kind: many futures at once, frame by frame."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from training.errors import BadInput
from training.ranges import at_least, one_of
from training.watch.free_threads import FreeThreads
from worldmodel.codec.exact.decoder import PortableDecoder
from worldmodel.decoding.base import FrameDecoder
from worldmodel.decoding.cached import CachedDecoder
from worldmodel.decoding.config import WAYS, Sampling
from worldmodel.decoding.diagonal import DiagonalDecoder
from worldmodel.decoding.drafts import Draft, FrameDraft, Jacobi, TokenDraft
from worldmodel.decoding.maskgit import MaskGIT
from worldmodel.decoding.native.kept import kept_for_decoding
from worldmodel.decoding.native.step import native_step
from worldmodel.decoding.occupancy import ONE_FRAME, OccupancyDecoder
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.speculative import SpeculativeDecoder
from worldmodel.decoding.weights import for_decoding
from worldmodel.decoding.whole_frame import KeyframesDecoder, WholeFrameDecoder
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.dynamics.keyframes.model import Keyframes
from worldmodel.dynamics.masked.model import Masked
from worldmodel.dynamics.occupancy.model import Occupancy
from worldmodel.dynamics.text import TextContext
from worldmodel.dynamics.whole_frame.model import WholeFrame
from worldmodel.load import load_world_model


@dataclass(frozen=True)
class Method:
    """A decoding method.

    Attributes:
        kind: class of the networks that it decodes.
        open: makes a decoder from (network, sampling, options).
        fits: whether it decodes a given network of that class.
    """

    kind: type[Dynamics]
    open: Callable[..., FrameDecoder]
    fits: Callable[[Any], bool] = lambda model: True

    @property
    def options(self) -> list[str]:
        named = list(signature(self.open).parameters)[2:]
        return [*named, "dtype", "threads", "kernel"] if self.kind is GPT else named


def speculative(
    model: GPT,
    sampling: Sampling | None = None,
    slide_steps: int | None = None,
    window: str = "slide",
    draft: str = "jacobi",
    num_draft: int = 16,
    draft_model: Dynamics | str | None = None,
) -> FrameDecoder:
    """A `SpeculativeDecoder` with a draft by name.

    Args:
        draft: "previous", "jacobi", or "model" for guesses of `draft_model`.
        draft_model: a network or a run folder.
    """
    guesses = open_draft(model, sampling, draft, draft_model)
    return SpeculativeDecoder(model, sampling, slide_steps, window, guesses, num_draft)


def open_draft(
    model: GPT, sampling: Sampling | None, draft: str, draft_model: Dynamics | str | None
) -> Draft:
    """The draft of speculative decoding.

    Raises:
        BadInput: an unknown draft, a draft that does not fit `draft_model`, or a draft model with
            other tokens or actions.
    """
    one_of(WAYS["draft"], draft=draft)
    if (draft == "model") != (draft_model is not None):
        raise BadInput(f"draft={draft}: draft=model and draft_model=RUN are given together")
    if draft_model is None:
        return Jacobi() if draft == "jacobi" else Draft()
    if isinstance(draft_model, str):
        draft_model = load_world_model(draft_model).network
    ours, theirs = (
        (m.spec.tokenizer, m.spec.grid, m.spec.vocab_size, m.num_actions)
        for m in (model, draft_model)
    )
    if ours != theirs:
        raise BadInput(
            f"draft_model: was made for (tokenizer, grid, vocabulary, actions) {theirs}, the model "
            f"for {ours}; train it on the same token store"
        )
    if draft_model.conditioned and not model.conditioned:
        raise BadInput("draft_model: needs actions, which the model does not read; use another")
    device = next(model.parameters()).device
    plain = sampling and replace(sampling, guidance=None)  # the rows that are guided come in pairs
    decoder = open_decoder(draft_model.to(device).eval(), plain)
    if isinstance(decoder, Decoder):
        return TokenDraft(decoder)
    return FrameDraft(decoder, draft_model.config.context_steps - 1)


def _cached(model: WholeFrame, inner: bool) -> bool:
    """Whether a whole-frame model reads every frame of its context, so that a cache serves."""
    return not isinstance(model, Keyframes) and bool(model.config.inner_layers) == inner


# The first method of a kind is its own choice ("auto").
METHODS = {
    "raster": Method(GPT, Decoder),
    "speculative": Method(GPT, speculative),
    "diagonal": Method(GPT, DiagonalDecoder),
    "portable": Method(GPT, PortableDecoder),
    "maskgit": Method(Masked, MaskGIT),
    "occupancy": Method(Occupancy, OccupancyDecoder),
    "keyframes": Method(Keyframes, KeyframesDecoder),
    "whole": Method(WholeFrame, WholeFrameDecoder, fits=lambda m: _cached(m, inner=False)),
    "whole_raster": Method(WholeFrame, WholeFrameDecoder, fits=lambda m: _cached(m, inner=True)),
}


def open_decoder(
    model: Dynamics, sampling: Sampling | None = None, method: str = "auto", **options: Any
) -> FrameDecoder:
    """A decoder of this model.

    Args:
        method: a name in `METHODS`, or "auto".
        options: arguments of the method's decoder, and for a GPT `dtype` (see `for_decoding`),
            `threads` and `kernel` (see `DecodingConfig`). None is the method's own choice.

    Raises:
        BadInput: a method that this kind of model cannot do (says which can), an option that
            the method does not have, or guidance by a condition that the model does not read.
    """
    able = [
        n for n, known in METHODS.items() if isinstance(model, known.kind) and known.fits(model)
    ]
    options = {name: value for name, value in options.items() if value is not None}
    chosen = able[0] if method == "auto" and able else method
    if chosen not in able:
        raise BadInput(
            f"decoding={method}: {type(model).__name__} can be decoded by: {', '.join(able)}"
        )
    known = METHODS[chosen].options
    for name, value in options.items():
        if name not in known:
            raise BadInput(f"{name}={value}: {chosen} has no such option; it has: {known}")
    if not isinstance(model, GPT):
        return METHODS[chosen].open(model, sampling, **options)
    one_of(WAYS["threads"], threads=(threads := options.pop("threads", "all")))
    one_of(WAYS["kernel"], kernel=(kernel := options.pop("kernel", "torch")))
    if kernel == "native" and chosen == "portable":
        raise BadInput("decoding.method=portable has its own arithmetic; leave decoding.kernel out")
    prepared = kept_for_decoding if kernel == "native" else for_decoding
    model = prepared(model, options.pop("dtype", None))
    decoder = cast(CachedDecoder, METHODS[chosen].open(model, sampling, **options))
    if threads == "free" and next(model.parameters()).device.type == "cpu":
        decoder.threads = FreeThreads()
    if kernel == "native":
        decoder.native = native_step(model)
    return decoder


def rollout(
    model: Dynamics,
    prompt_tokens: Int[Tensor, "batch time height width"],
    actions: Float[Tensor, "batch step action"] | None,
    horizon: int,
    sampling: Sampling | None = None,
    num_futures: int = 1,
    drop_actions: Bool[Tensor, " batch"] | None = None,
    method: str = "auto",
    captions: TextContext | None = None,
    **options: Any,
) -> Int[Tensor, "batch future horizon height width"]:
    """Several futures of `horizon` frames for every prompt, decoded in one batch.

    Args:
        actions: row t leads to frame t + 1, so prompt + horizon - 1 rows; all futures of an
            example share them. Ignored by a model without actions. A model that predicts
            actions samples missing ones at the end.
        method, options: decoder and its options (see `open_decoder`).
        captions: captions of every time step of prompt and horizon; the last one holds on.
    Raises:
        BadInput: a prompt longer than the context, too few actions, wrong shapes, text for a
            model without text, or a method that this model does not support.
    """
    at_least(1, horizon=horizon)
    if model.state_steps and horizon != model.sample_steps:
        raise BadInput(ONE_FRAME)
    time = prompt_tokens.shape[1]
    given = actions if model.conditioned else None
    last = 0 if model.state_steps else horizon - 1  # a sample has the action after the state
    needed = time + last
    if given is not None and given.shape[1] < (time - 1 if model.predicts_actions else needed):
        raise BadInput(
            f"{given.shape[1]} action rows for a prompt of {time} frames and a horizon of "
            f"{horizon}; give {needed}, or shorten the horizon"
        )
    model.check_captions(captions, len(prompt_tokens))
    decoder = open_decoder(model, sampling, method, **options)
    decoder.start(prompt_tokens, given, num_futures, drop_actions, captions)
    frames = []
    for step in range(horizon):
        action = None
        row = time - 1 + min(step, last)
        if given is not None and row < given.shape[1]:
            action = given[:, row].repeat_interleave(num_futures, dim=0)
        frames.append(decoder.next_frame(action))
    return torch.stack(frames, dim=1).unflatten(0, (len(prompt_tokens), num_futures))
