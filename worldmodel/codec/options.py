"""Options of the codec; its command makes flags of them. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from training.errors import BadInput
from training.ranges import at_least, one_of

ADAPTIVE = ("uniform", "unigram", "previous")


@dataclass(frozen=True, kw_only=True)
class CodecOptions:
    """How tokens are coded.

    Attributes:
        ckpt: runs, checkpoint folders or packed files of world models, with commas between them.
            The distributions of several predictors are mixed by how well each did so far.
        floors: predictors that learn from the tokens that were coded, with commas between them:
            uniform, unigram, previous (given the token of the same cell in the frame before).
        arithmetic: of the models: exact decodes on any machine; float is faster, and decodes only
            on a machine like this one.
        segment_steps: time steps of a segment, which is coded on its own; its first step costs
            log2(vocabulary) bits per token.
        parallel: segments that are coded at once.
        slide_steps: frames that leave a full context at once; the others are read again. By default
            half of a GPT's context, because it reads longest, and a quarter of other models'.
        vocab: size of the vocabulary of a .npy file that is coded without a model; its largest
            token + 1 by default.

    Raises:
        BadInput: nothing predicts, or a value is out of range.
    """

    ckpt: str = ""
    floors: str = ""
    arithmetic: Literal["exact", "float"] = "exact"
    segment_steps: int = 600
    parallel: int = 32
    slide_steps: int | None = None
    vocab: int | None = None

    def __post_init__(self) -> None:
        at_least(1, segment_steps=self.segment_steps, parallel=self.parallel)
        for name in ("vocab", "slide_steps"):
            if (value := getattr(self, name)) is not None:
                at_least(1, **{name: value})
        for name in self.floor_names:
            one_of(ADAPTIVE, floors=name)
        for setting, names in (("ckpt", self.ckpts), ("floors", self.floor_names)):
            if len(set(names)) < len(names):
                raise BadInput(f"{setting}={','.join(names)}: names one twice; give each once")
        if not self.ckpts and not self.floor_names:
            raise BadInput("ckpt='': nothing predicts the tokens; give --ckpt RUN, or --floors")

    @property
    def ckpts(self) -> list[str]:
        return listed(self.ckpt)

    @property
    def floor_names(self) -> list[str]:
        return listed(self.floors)


def listed(text: str) -> list[str]:
    """What commas separate."""
    return [part for part in text.split(",") if part]
