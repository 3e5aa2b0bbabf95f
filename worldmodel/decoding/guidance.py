"""Guidance: what a condition changes about a prediction is made stronger.

Logits are (1 + t) conditioned - t unconditioned (Ho and Salimans 2022, arXiv 2207.12598), with
t scheduled over the tokens of a frame and over frames (GAIA-1, arXiv 2309.17080, section 5).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from training.errors import BadInput

CONDITIONS = ("actions", "text", "both")


@dataclass(frozen=True)
class Guidance:
    """How much stronger, where. A model has to be trained with dropped conditions for it.

    Attributes:
        scale: t; 0 is no guidance.
        condition: the one made stronger: "actions", "text" or "both".
        last_token_share: t falls linearly over the tokens of a frame in raster order, from all
            of it at the first to this share at the last: the first settle what is seen, the
            others vary.
        num_full_frames: imagined frames of undiminished t (GAIA-1's plateau).
        num_decay_frames: frames over which t then falls to 0 as a cosine; 0: it never falls.
        negative: a caption to turn away from, instead of from saying nothing.
    """

    scale: float = 0.0
    condition: str = "both"
    last_token_share: float = 1.0
    num_full_frames: int = 0
    num_decay_frames: int = 0
    negative: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise BadInput(f"guidance.scale={self.scale}; give 0 (off) or more")
        if self.condition not in CONDITIONS:
            raise BadInput(
                f"guidance.condition={self.condition!r}; choose one of {', '.join(CONDITIONS)}"
            )
        if not 0 <= self.last_token_share <= 1:
            raise BadInput(
                f"guidance.last_token_share={self.last_token_share}; give 0 (linear to nothing) "
                "to 1 (constant)"
            )
        if self.num_full_frames < 0 or self.num_decay_frames < 0:
            raise BadInput(
                f"guidance.num_full_frames={self.num_full_frames}, "
                f"num_decay_frames={self.num_decay_frames}; give 0 or more"
            )
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
        """BadInput unless a model that reads these conditions can be guided so."""
        known = {"actions": actions, "text": text, "both": actions or text}
        if not known[self.condition]:
            raise BadInput(
                f"guidance.condition={self.condition}: this model does not read it; "
                f"it reads: {', '.join(k for k, v in known.items() if v) or 'none'}"
            )

    def weakens(self, condition: str) -> bool:
        """Whether the unconditioned rows go without this one."""
        return self.condition in (condition, "both")

    def level(self, frame: int) -> float:
        """t of the first token of an imagined frame, the first of which is number 0."""
        over = frame - self.num_full_frames
        if not self.num_decay_frames or over <= 0:
            return self.scale
        return self.scale * 0.5 * (1 + math.cos(math.pi * min(1.0, over / self.num_decay_frames)))

    def shares(self, num_tokens: int) -> Float[Tensor, " token"]:
        """What is left of the level at every token of a frame."""
        return torch.linspace(1, self.last_token_share, num_tokens)


def guide(
    conditioned: Float[Tensor, "row token vocab"],
    other: Float[Tensor, "row token vocab"],
    scales: Float[Tensor, " token"],
) -> Float[Tensor, "row token vocab"]:
    """(1 + t) conditioned - t unconditioned logits."""
    return conditioned + scales[:, None] * (conditioned - other)
