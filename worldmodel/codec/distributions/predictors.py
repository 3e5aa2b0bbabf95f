"""What codes tokens: distributions of the next ones, given those before."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator

import numpy as np
from jaxtyping import Float, Integer

from training.errors import BadInput

# The probabilities of some cells [row cell vocab], float64, and which cells, in raster order.
Told = tuple[np.ndarray, slice]
Guesses = Generator[Told, np.ndarray, None]  # is sent their tokens [row cell]
MOST_PAIRS = 2**24  # entries of a table of pairs of tokens


class Predictor(ABC):
    """Predicts the frames of several segments in lockstep, frame by frame.

    Attributes:
        vocab_size: number of different tokens.
        reads_actions: whether it needs the actions.
        foresees: whether `known` gives the very bits of `predict`, so that a segment that is there
            already is coded without a walk over its tokens.
    """

    vocab_size: int
    reads_actions: bool = False
    foresees: bool = False

    @abstractmethod
    def start(
        self,
        frames: Integer[np.ndarray, "row height width"],
        actions: Float[np.ndarray, "row step action"] | None,
    ) -> None:
        """Begin segments with their first frames.

        Args:
            actions: row t leads to frame t + 1; those of the segments' other frames may follow.
        """

    @abstractmethod
    def predict(self, action: Float[np.ndarray, "row action"] | None) -> Guesses:
        """The next frame, and after the generator's end the one after it.

        Args:
            action: the one that leads to it.
        """

    def known(
        self,
        frames: Integer[np.ndarray, "step height width"],
        actions: Float[np.ndarray, "step action"] | None,
    ) -> Iterator[Float[np.ndarray, "cell vocab"]]:
        """The probabilities of every frame of a segment but the first, each given all before."""
        raise NotImplementedError(type(self).__name__)


def sent(guesses: Guesses, tokens: np.ndarray) -> Told | None:
    """What follows after these tokens; None at the frame's end."""
    try:
        return guesses.send(tokens)
    except StopIteration:
        return None


class Uniform(Predictor):
    """Every token is as likely as any other."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def start(self, frames: np.ndarray, actions: np.ndarray | None) -> None:
        self.rows, self.space = len(frames), frames[0].size

    def predict(self, action: np.ndarray | None) -> Guesses:
        shape = self.rows, self.space, self.vocab_size
        yield np.broadcast_to(np.float64(1 / self.vocab_size), shape), slice(0, self.space)


class Unigram(Predictor):
    """One distribution of all tokens, by counts of those before (Krichevsky, Trofimov 1981)."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def start(self, frames: np.ndarray, actions: np.ndarray | None) -> None:
        self.counts = np.zeros((len(frames), self.vocab_size), np.int64)
        self.space = frames[0].size
        self.count(frames.reshape(len(frames), -1))

    def count(self, tokens: Integer[np.ndarray, "row cell"]) -> None:
        for counts, own in zip(self.counts, tokens, strict=True):
            counts += np.bincount(own, minlength=self.vocab_size)

    def probs(self) -> Float[np.ndarray, "row vocab"]:
        # Integers over integers: one rounding, the same on every machine.
        total = 2 * self.counts.sum(-1, keepdims=True) + self.vocab_size
        found: np.ndarray = (2 * self.counts + 1) / total
        return found

    def predict(self, action: np.ndarray | None) -> Guesses:
        shape = len(self.counts), self.space, self.vocab_size
        tokens = yield np.broadcast_to(self.probs()[:, None], shape), slice(0, self.space)
        self.count(tokens)


class Previous(Unigram):
    """p(token | that of the same cell before), by counts, Dirichlet-smoothed towards the unigram.

    Raises:
        BadInput: the table of pairs would be too large.
    """

    STRENGTH = 2.0  # of the prior, in tokens

    def __init__(self, vocab_size: int) -> None:
        if vocab_size**2 > MOST_PAIRS:
            raise BadInput(
                f"floors=previous: {vocab_size} tokens make too large a table of pairs; leave it "
                "out"
            )
        super().__init__(vocab_size)

    def start(self, frames: np.ndarray, actions: np.ndarray | None) -> None:
        super().start(frames, actions)
        self.pairs = np.zeros((len(frames), self.vocab_size, self.vocab_size), np.int32)
        self.last = frames.reshape(len(frames), -1)

    def predict(self, action: np.ndarray | None) -> Guesses:
        rows = np.arange(len(self.last))[:, None]
        seen = self.pairs[rows, self.last]
        prior = self.STRENGTH * self.probs()[:, None]
        probs = (seen + prior) / (seen.sum(-1, keepdims=True) + self.STRENGTH)
        tokens = yield probs, slice(0, self.space)
        np.add.at(self.pairs, (rows, self.last, tokens), 1)
        self.last = tokens
        self.count(tokens)


FLOORS: dict[str, type[Uniform] | type[Unigram]] = {
    "uniform": Uniform,
    "unigram": Unigram,
    "previous": Previous,
}
