"""The discounted future of the known-entropy world, exactly: what an occupancy model learns.

After k steps the panorama has rolled by S_k, the sum of k yaws modulo W, and a token is still the
one that it was with probability (1 - p)^k. So with the likelihoods m_k and n_k of equation (2) for
1 - p_k = (1 - p)^k, and c_s the number of the N tokens of x' that match x rolled by s,

    p_gamma(x' | x, a) = sum_{k >= 1} (1 - gamma) gamma^(k - 1)
                         sum_s P(S_k = s | a) m_k^c_s n_k^(N - c_s)  =  g(c)             (7)
    H_gamma = -sum_c U(c) V^N g(c) log g(c) / N          nats per token                  (8)

The first yaw is a, the later ones are drawn. U(c) is the probability of the counts c for a frame
of uniform noise: counts alone decide the likelihood, so no frame is enumerated. It does not change
when x is rolled, so H_gamma is the same for every a. For gamma = 0, (7) is (1), and H_gamma is H1.
Steps of a probability below 1e-12 together are taken for one step.
"""

import math

import numpy as np
from jaxtyping import Float, Integer

from training.errors import BadInput
from training.ranges import below_one
from worldmodel.known_entropy.channel import TurningChannel
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import ACTION_NAMES, YAWS

REST = 1e-12
MOST_COUNTS = 10**7


class KnownOccupancy:
    """Likelihoods and entropy of the discounted future of a `KnownEntropyWorld`.

    Raises:
        BadInput: gamma outside [0, 1).
    """

    def __init__(self, config: KnownEntropyConfig, gamma: float) -> None:
        below_one(gamma=gamma)
        self.config, self.gamma = config, gamma
        self.height, self.width = config.grid[1:]
        ahead = 1 + np.arange(1 if gamma == 0 else math.ceil(math.log(REST) / math.log(gamma)))
        weights = (1 - gamma) * gamma ** (ahead - 1.0)
        weights[-1] += gamma ** ahead[-1]
        self._log_weights = np.log(weights)
        changed = 1 - (1 - config.resample_prob) ** ahead
        self._log_match = np.log(1 - changed + changed / config.vocab_size)
        self._log_mismatch = np.log(changed / config.vocab_size)
        noise = 1 / config.vocab_size
        shifts = tuple(range(self.width))
        uniform = np.full(self.width, 1 / self.width)
        self._noise = TurningChannel(self.width, config.vocab_size, noise, noise, shifts, uniform)

    def entropy(self, with_actions: bool = True) -> float:
        """Nats per token: (8); without actions, the first yaw is drawn as the later ones.

        Raises:
            BadInput: the grid has too many counts to sum over.
        """
        num_tokens = self.height * self.width
        if (num_tokens + 1) ** self.width > MOST_COUNTS:
            raise BadInput(
                f"grid={tuple(self.config.grid)}: its exact discounted entropy sums over "
                f"{num_tokens + 1}^{self.width} counts; give a smaller grid"
            )
        noise = self._noise.counts(0, self.height, 0)
        matched = np.asarray(np.indices(noise.shape)).reshape(self.width, -1)
        some = noise.ravel() > 0
        shifts = self._shift_probs(0 if with_actions else None)
        log_likelihood = self._log_likelihood(matched[:, some].T[:, None, :], num_tokens, shifts)
        likelihood = np.exp(log_likelihood[:, 0] + num_tokens * math.log(self.config.vocab_size))
        return float(-(noise.ravel()[some] * likelihood) @ log_likelihood[:, 0]) / num_tokens

    def nll(
        self,
        past: Integer[np.ndarray, "*frame height width"],
        future: Integer[np.ndarray, "*frame height width"],
        actions: Float[np.ndarray, "*frame action"] | None = None,
    ) -> Float[np.ndarray, "*frame height width"]:
        """Nats of every token of a frame of the discounted future, given its earlier tokens.

        Args:
            actions: the one that followed each past frame; None: the predictor does not know it.

        Raises:
            BadInput: the actions are not one column of -1, 0 or 1.
        """
        match = self._noise.matches(past, future)
        counts = np.cumsum(match.reshape(-1, self.width, self.height * self.width), axis=-1)
        counts = counts.transpose(0, 2, 1)  # [frame cell shift]
        seen = np.arange(1, 1 + counts.shape[1])
        if actions is None:
            read = self._log_likelihood(counts, seen, self._shift_probs(None))
        else:
            if actions.shape[-1] != len(ACTION_NAMES) or not np.isin(actions, YAWS).all():
                raise BadInput(f"actions of shape {actions.shape}: give one column of {YAWS}")
            first, read = actions.reshape(-1).astype(int), np.zeros(counts.shape[:2])
            for yaw in np.unique(first):
                here, shifts = first == yaw, self._shift_probs(int(yaw))
                read[here] = self._log_likelihood(counts[here], seen, shifts)
        before = np.concatenate([np.zeros_like(read[:, :1]), read[:, :-1]], axis=1)
        return (before - read).reshape(future.shape)

    def _shift_probs(self, first: int | None) -> Float[np.ndarray, "step shift"]:
        """P(S_k = s) for every k, given the first yaw or not."""
        drawn = np.zeros(self.width)
        for yaw, prob in zip(YAWS, self.config.yaw_probs, strict=True):
            drawn[yaw % self.width] += prob
        now = drawn
        if first is not None:
            now = np.eye(self.width)[first % self.width]
        rows = [now]
        turns = np.stack([np.roll(drawn, shift) for shift in range(self.width)])
        for _ in self._log_weights[1:]:
            rows.append(rows[-1] @ turns)
        return np.stack(rows)

    def _log_likelihood(
        self,
        counts: Integer[np.ndarray, "frame cell shift"],
        seen: int | Integer[np.ndarray, " cell"],
        shift_probs: Float[np.ndarray, "step shift"],
    ) -> Float[np.ndarray, "frame cell"]:
        """log g of the first `seen` tokens, of which `counts` match: (7)."""
        total = np.full(counts.shape[:2], -np.inf)
        others = np.broadcast_to(seen, counts.shape[1])[:, None] - counts
        terms = zip(
            self._log_weights, self._log_match, self._log_mismatch, shift_probs, strict=True
        )
        for log_weight, log_match, log_mismatch, probs in terms:
            here = probs > 0
            log_probs = log_weight + np.log(probs[here])
            tokens = counts[..., here] * log_match + others[..., here] * log_mismatch
            total = np.logaddexp(total, np.logaddexp.reduce(tokens + log_probs, axis=-1))
        return total
