"""A mixture of predictors, weighted by how well each did so far."""

from collections.abc import Sequence

import numpy as np

from worldmodel.codec.distributions.predictors import Guesses, Predictor, Told, sent


class Mixed(Predictor):
    """Bayes' rule with a fixed share (Herbster and Warmuth 1998).

    A token's weights are those of the tokens before, times what each predictor gave them; a share
    of all weight is spread evenly after each, so a predictor can come back. Every operation is one
    rounding of two numbers, so the weights are the same on every machine.
    """

    SHARE = 2.0**-10

    def __init__(self, parts: Sequence[Predictor]) -> None:
        self.parts = list(parts)
        self.vocab_size = parts[0].vocab_size
        self.reads_actions = any(part.reads_actions for part in parts)

    def start(self, frames: np.ndarray, actions: np.ndarray | None) -> None:
        for part in self.parts:
            part.start(frames, actions)
        self.space = frames[0].size
        self.weights = np.full((len(self.parts), len(frames)), 1 / len(self.parts))

    def predict(self, action: np.ndarray | None) -> Guesses:
        guesses = [part.predict(action) for part in self.parts]
        told: list[Told] = [next(guess) for guess in guesses]
        tokens = np.zeros((self.weights.shape[1], self.space), np.int64)
        start = 0
        while start < self.space:
            stop = min(cells.stop for _, cells in told)
            here = [probs[:, start - cells.start : stop - cells.start] for probs, cells in told]
            parts = [w[:, None, None] * p for w, p in zip(self.weights, here, strict=True)]
            tokens[:, start:stop] = yield sum(parts[1:], start=parts[0]), slice(start, stop)
            self._learn(here, tokens[:, start:stop])
            for i, (_, cells) in enumerate(told):
                if cells.stop == stop:
                    told[i] = sent(guesses[i], tokens[:, cells]) or told[i]
            start = stop

    def _learn(self, here: list[np.ndarray], tokens: np.ndarray) -> None:
        """Weigh the predictors anew, cell by cell."""
        given = np.stack([np.take_along_axis(p, tokens[..., None], -1)[..., 0] for p in here])
        for cell in range(tokens.shape[1]):
            weights = self.weights * np.maximum(given[:, :, cell], 1e-30)
            total = sum(weights[1:], start=weights[0])
            self.weights = (1 - self.SHARE) * (weights / total) + self.SHARE / len(self.parts)
