"""Settings of sampling and guidance; imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.errors import BadInput
from training.ranges import at_least, one_of, positive, share

WAYS = {
    "method": (
        "auto",
        "raster",
        "speculative",
        "diagonal",
        "portable",
        "maskgit",
        "keyframes",
        "occupancy",
        "whole",
        "whole_raster",
    ),
    "window": ("slide", "roll"),
    "dtype": ("float32", "bfloat16", "float16", "int8"),
    "draft": ("previous", "jacobi", "model"),
    "order": ("random", "confidence"),
    "threads": ("all", "free"),
    "kernel": ("torch", "native"),
}
CONDITIONS = ("actions", "text", "both")


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance; it needs a model trained with dropped conditions.

    Attributes:
        scale: guidance scale t; 0 turns guidance off.
        condition: what is guided: "actions", "text" or "both".
        last_token_share: t falls linearly over the tokens of a frame in raster order. This is
            the share of t at the last token. The first tokens decide the content of a frame, so
            they get the full t.
        num_full_frames: number of imagined frames with the full t (the plateau of GAIA-1).
        num_decay_frames: t then falls to 0 as a cosine over this number of frames; 0: no decay.
        negative: negative prompt; it replaces the empty caption in the unconditioned rows.
    """

    scale: float = 0.0
    condition: str = "both"
    last_token_share: float = 1.0
    num_full_frames: int = 0
    num_decay_frames: int = 0
    negative: str = ""

    def __post_init__(self) -> None:
        at_least(0.0, "guidance.", scale=self.scale)
        one_of(CONDITIONS, "guidance.", condition=self.condition)
        share("guidance.", last_token_share=self.last_token_share)
        at_least(0, "guidance.", num_full_frames=self.num_full_frames)
        at_least(0, "guidance.", num_decay_frames=self.num_decay_frames)
        if self.num_full_frames and not self.num_decay_frames:
            raise BadInput(
                f"guidance.num_full_frames={self.num_full_frames} does nothing without a decay "
                "after it; give num_decay_frames too"
            )
        if self.negative and self.condition == "actions":
            raise BadInput(
                f"guidance.negative={self.negative!r} is text, but guidance.condition=actions; "
                "choose condition=text or condition=both"
            )

    def check(self, actions: bool, text: bool) -> None:
        """BadInput unless the model reads the guided condition."""
        known = {"actions": actions, "text": text, "both": actions or text}
        if not known[self.condition]:
            raise BadInput(
                f"guidance.condition={self.condition}: this model does not read it; "
                f"it reads: {', '.join(k for k, v in known.items() if v) or 'none'}"
            )

    def weakens(self, condition: str) -> bool:
        """Whether the unconditioned rows lack this condition."""
        return self.condition in (condition, "both")

    def level(self, frame: int) -> float:
        """Scale t at the first token of an imagined frame; frames are counted from 0."""
        over = frame - self.num_full_frames
        if not self.num_decay_frames or over <= 0:
            return self.scale
        return self.scale * 0.5 * (1 + math.cos(math.pi * min(1.0, over / self.num_decay_frames)))


@dataclass(frozen=True)
class Sampling:
    """How the next token is sampled from the logits.

    Attributes:
        temperature: divides the logits; below 1 sharpens the distribution, above 1 flattens it.
        top_k: sample from the k most likely tokens only; 0 keeps all. Among equally likely
            tokens, the lowest ids stay. Sampling from all tokens drifts off the data, and the
            most likely token alone loops (GAIA-1, Hu et al. 2023, arXiv 2309.17080, section 5).
        top_p: sample from the smallest set of most likely tokens with total probability p; 1
            keeps all.
        greedy: take the most likely token; temperature, top_k and top_p must keep their defaults.
        seed: the same seed gives the same futures.
        common: all examples of a batch draw by the same numbers, so that what differs between
            their futures comes from the examples and less from chance (common random numbers).
        guidance: classifier-free guidance; some methods do not support it.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    greedy: bool = False
    seed: int = 0
    common: bool = False
    guidance: Guidance | None = None

    def __post_init__(self) -> None:
        if self.temperature == 0:
            raise BadInput("sampling.temperature=0: give greedy=true, its limit")
        positive("sampling.", temperature=self.temperature, top_p=self.top_p)
        share("sampling.", top_p=self.top_p)
        at_least(0, "sampling.", top_k=self.top_k, seed=self.seed)
        at_rest = self.temperature == self.top_p == 1 and self.top_k in (0, Sampling.top_k)
        if self.greedy and not at_rest:
            raise BadInput(
                "sampling.greedy=true ignores temperature, top_k and top_p; leave them out"
            )

    @property
    def guided(self) -> bool:
        return self.guidance is not None and self.guidance.scale > 0


def sampling_from(values: Mapping[str, Any]) -> Sampling:
    """Build the settings from a config without instantiating class names; null is the default."""
    own, guidance = (
        {k: v for k, v in part.items() if k not in ("_target_", "guidance") and v is not None}
        for part in (values, values.get("guidance") or {})
    )
    return Sampling(**own, guidance=Guidance(**guidance))


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How a world model is decoded; an option that is null is the method's own choice.

    Attributes:
        method: auto | raster | speculative | diagonal | portable | maskgit | occupancy |
            keyframes | whole | whole_raster; auto is the exact one of the kind (docs/decoding.md).
        slide_steps: frames that leave a full context at once.
        window: what becomes of the others: slide (read again) | roll (kept).
        dtype: of the weights: float32 | bfloat16 | float16 | int8.
        draft: of speculative: previous | jacobi | model.
        num_draft: of speculative: tokens that are guessed at once.
        draft_model: of draft=model: a run.
        lag: of diagonal: cells between one row and the next.
        num_steps: of maskgit: passes per frame.
        order: of maskgit: which tokens settle first: random | confidence.
        threads: of a GPT on a CPU: all | free (as many as other processes leave cores, looked at
            all the time; tokens may then differ by rounding).
        kernel: of a GPT on a CPU: torch | native (passes over few positions run in a C function,
            compiled here at first use; equal to rounding).
    """

    method: str = "auto"
    slide_steps: int | None = None
    window: str | None = None
    dtype: str | None = None
    draft: str | None = None
    num_draft: int | None = None
    draft_model: str | None = None
    lag: int | None = None
    num_steps: int | None = None
    order: str | None = None
    threads: str | None = None
    kernel: str | None = None

    def __post_init__(self) -> None:
        for name in ("slide_steps", "num_draft", "lag", "num_steps"):
            if (value := getattr(self, name)) is not None:
                at_least(1, "decoding.", **{name: value})
        for name, known in WAYS.items():
            if (value := getattr(self, name)) is not None:
                one_of(known, "decoding.", **{name: value})
