"""Settings of conditions: dropped, disturbed, and read from captions; imports no torch."""

from dataclasses import dataclass

from training.errors import BadInput
from training.ranges import at_least, share


@dataclass(frozen=True)
class SharesConfig:
    """Shares of examples that read only some of their conditions.

    Such a model decodes with any subset of the conditions, and supports guidance.
    GAIA-1 (Hu et al. 2023, arXiv 2309.17080, section 4.2): none 0.2, actions 0.4, text 0.4.

    Attributes:
        none: on neither actions nor text (GAIA-1: 0.2).
        actions: on actions alone (GAIA-1: 0.4).
        text: on text alone (GAIA-1: 0.4); `action_dropout` adds to it.
    """

    none: float = 0.0
    actions: float = 0.0
    text: float = 0.0

    def __post_init__(self) -> None:
        share("conditions.", none=self.none, actions=self.actions, text=self.text)
        if self.none + self.actions + self.text > 1 + 1e-6:
            raise BadInput(f"{self}: give shares that sum to 1 at most (the rest reads everything)")

    def __str__(self) -> str:
        return f"conditions none={self.none}, actions={self.actions}, text={self.text}"


@dataclass(frozen=True)
class RobustnessConfig:
    """Disturbances of the context in training; they can be combined.

    Attributes:
        corrupt: largest share of context tokens that are replaced by random ones; every example
            draws its share from 0 to this (as in 1X GENIE).
        noise: largest standard deviation of Gaussian noise on the embeddings of frame tokens, as a
            multiple of theirs; every example draws its level from 0 to this. The network
            reads the level if `network.noise_levels` is not 0 (GameNGen,
            arXiv 2408.14837, section 3.2.1), and always decodes at level 0.
        self_fed_frames: frames of every window that are replaced by samples of the model,
            drawn teacher-forced in one pass without gradient (two-pass scheduled sampling,
            Mihaylova and Martins 2019, arXiv 1906.07651). Frames that a loss does not count
            stay as recorded.
    """

    corrupt: float = 0.0
    noise: float = 0.0
    self_fed_frames: int = 0

    def __post_init__(self) -> None:
        share("robustness.", corrupt=self.corrupt)
        at_least(0.0, "robustness.", noise=self.noise)
        at_least(0, "robustness.", self_fed_frames=self.self_fed_frames)


class TextEncoderConfig:
    """Base of the configs; each frozen dataclass describes one kind of text encoder."""


@dataclass(frozen=True)
class HashedWordsConfig(TextEncoderConfig):
    """Maps every word to a fixed random vector; it has no weights.

    It suffices for captions of few words ("sunny", "fog") without grammar.

    Attributes:
        width: channels of a vector.
    """

    width: int = 64

    def __post_init__(self) -> None:
        at_least(1, "model.text.", width=self.width)


@dataclass(frozen=True)
class T5Config(TextEncoderConfig):
    """The encoder of a T5 (Raffel et al. 2020, arXiv 1910.10683), opened by transformers.

    Attributes:
        name: a model on the Hugging Face hub (GAIA-1: t5-large), or a folder with one.
    """

    name: str = "t5-large"
