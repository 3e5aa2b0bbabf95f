"""A driving world with an exactly known entropy per token, to test world models against.

A frame is a grid of tokens: a panorama around the car. Between two frames the car yaws by a_t
in {-1, 0, 1} columns. The yaw is independent of everything else. The panorama rolls by a_t
columns. Then each token is resampled with probability p, uniformly from the V tokens. Let
roll_a(x)[r, c] = x[r, c - a mod W]. The likelihood is

    p(x_{t+1} | x_t, a_t) = prod_i f(x_{t+1}[i] | roll_{a_t}(x_t)[i])                 (1)
    f(y | s) = m = 1 - p + p/V  where y = s,  and  n = p/V  elsewhere.                (2)

Frame 0 is uniform, and (1) preserves this: every single frame is uniform noise over V tokens.
Given independent actions, the frames are a Markov chain of order 1. So one frame of context
holds all information of the past, and all numbers below are exact for windows of two or more
frames.

Targets are the tokens of frames 1.. of a window. Tokens of frame 0 cost log V nats for every
model. The cross entropy of an optimal model, in nats per target, is

    H1 = -m log m - (V - 1) n log n                  given frames and actions         (3)
    H0 = E[-log sum_a p(a) p(x' | x, a)] / (H W)     given frames                     (4)
    H1 + P(a != a') (C - H1)                         given frames and independent a'  (5)
    HP = E[-sum_y q(y) log q(y)],  q(y) = sum_a p(a) f(y | roll_a(x)[i])
                                  given frames, as a product over the cells           (6)

where C = -(1/V) log m - (1 - 1/V) log n: tokens of unrelated cells match by chance. H0 - H1 is
the information of one frame about its action. It is at most H(a) / (H W), and the first tokens
in raster order carry it. A model that samples the cells of a frame independently cannot infer
the action from other cells, so HP >= H0, with equality for frames of one cell. Given actions,
the cells are independent, and such a model reaches H1.
"""

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from drives.tokens.store import TokenSpec
from drives.tokens.writer import TokenStoreWriter
from training.errors import BadInput
from training.ranges import at_least
from worldmodel.known_entropy.channel import TurningChannel
from worldmodel.known_entropy.config import KnownEntropyConfig

ACTION_NAMES = ("yaw_rate_rad_s",)
YAWS = (-1, 0, 1)  # columns; positive turns the car left, so the scene moves right
NATS_PER_BIT = math.log(2)


class KnownEntropyWorld:
    """Samples drives of this world, and computes the cross entropy of an optimal model."""

    def __init__(self, config: KnownEntropyConfig | None = None) -> None:
        self.config = config or KnownEntropyConfig()
        self.height, self.width = self.config.grid[1:]
        # Yaws with the same effect on a narrow grid are one shift: -1 and 1 for width 2.
        self._shifts = tuple(sorted({yaw % self.width for yaw in YAWS}))
        probs = np.zeros(len(self._shifts))
        for yaw, prob in zip(YAWS, self.config.yaw_probs, strict=True):
            probs[self._shifts.index(yaw % self.width)] += prob
        mismatch = self.config.resample_prob / self.config.vocab_size
        self._channel = TurningChannel(
            width=self.width,
            vocab_size=self.config.vocab_size,
            match=1 - self.config.resample_prob + mismatch,
            mismatch=mismatch,
            shifts=self._shifts,
            shift_probs=probs / probs.sum(),
        )

    @property
    def spec(self) -> TokenSpec:
        """The spec of a token store of this world; its hash covers every field of the config."""
        config = self.config
        digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()
        return TokenSpec(
            grid=(1, self.height, self.width),
            vocab_size=config.vocab_size,
            fps=config.fps,
            frames_per_step=1,
            image_size=(self.height, self.width),
            tokenizer=f"known-entropy-{digest}",
        )

    def entropy(self, with_actions: bool = True) -> float:
        """Nats per token of frames 1..: equation (3) with actions, (4) without."""
        if with_actions:
            return self._channel.entropy()
        return self._channel.prefix_entropy(self.height, 0) / (self.height * self.width)

    def entropy_product(self) -> float:
        """Nats per token of the best product of one distribution per cell, without actions: (6)."""
        return self._channel.product_entropy()

    def entropy_bits(self, with_actions: bool = True) -> float:
        """Bits per token: `entropy` / log 2."""
        return self.entropy(with_actions) / NATS_PER_BIT

    def entropy_by_position(self, with_actions: bool = True) -> Float[np.ndarray, "height width"]:
        """Nats of each token given the past and the earlier tokens of its frame.

        The order is raster order. Without actions, this is the chain rule: differences between
        the entropies of longer and longer prefixes of a frame. The mean is
        `entropy(with_actions)`.
        """
        if with_actions:
            return np.full((self.height, self.width), self.entropy())
        prefixes = [
            self._channel.prefix_entropy(rows, cells)
            for rows in range(self.height)
            for cells in range(self.width)
        ]
        total = self._channel.prefix_entropy(self.height, 0)
        return np.diff([*prefixes, total]).reshape(self.height, self.width)

    def first_frame_entropy(self) -> float:
        """Nats per token of frame 0 of a window: log V."""
        return math.log(self.config.vocab_size)

    def shuffled_penalty(self) -> float:
        """Nats per token that an optimal model loses through independent actions: (5) - (3).

        It is exact for newly sampled actions and for actions of unrelated windows. A permutation
        of few rows changes another share of them than P(a != a'); then use `optimal_nll`.
        """
        channel, vocab = self._channel, self.config.vocab_size
        wrong = -math.log(channel.match) / vocab - (1 - 1 / vocab) * math.log(channel.mismatch)
        same = channel.shift_probs @ channel.shift_probs
        return float(1 - same) * (wrong - channel.entropy())

    def sample(
        self, steps: int, seed: int | list[int]
    ) -> tuple[Integer[np.ndarray, "step height width"], Float[np.ndarray, "step action"]]:
        """One drive: uint16 tokens, and float32 actions whose row t explains frame t+1."""
        rng = np.random.default_rng(seed)
        shape = (steps, self.height, self.width)
        yaws = rng.choice(YAWS, size=steps, p=self.config.yaw_probs)
        is_new = rng.random(shape) < self.config.resample_prob
        tokens = rng.integers(self.config.vocab_size, size=shape, dtype=np.uint16)
        for t in range(steps - 1):
            turned = np.roll(tokens[t], yaws[t], axis=1)
            tokens[t + 1] = np.where(is_new[t + 1], tokens[t + 1], turned)
        return tokens, yaws[:, None].astype(np.float32)

    def optimal_nll(
        self,
        tokens: Integer[np.ndarray, "*batch step height width"],
        actions: Float[np.ndarray, "*batch step action"] | None = None,
    ) -> Float[np.ndarray, "*batch step-1 height width"]:
        """Nats of every token of frames 1.. under the Bayes-optimal predictor.

        With `actions`, the predictor conditions on them, whether they are true or not. Without,
        it updates a posterior over the action while it reads a frame in raster order.

        Raises:
            BadInput: the actions are not one column of -1, 0 or 1.
        """
        shift = None if actions is None else self._shift_index(actions)[..., :-1]
        return self._channel.nll(tokens[..., :-1, :, :], tokens[..., 1:, :, :], shift)

    def product_nll(
        self, tokens: Integer[np.ndarray, "*batch step height width"]
    ) -> Float[np.ndarray, "*batch step-1 height width"]:
        """Nats of every token of frames 1.. under the best product over cells: (6)."""
        return self._channel.product_nll(tokens[..., :-1, :, :], tokens[..., 1:, :, :])

    def write_store(self, root: Path, num_train: int, num_test: int, steps: int, seed: int) -> None:
        """Write a token store of `num_train` and `num_test` drives of `steps` frames each.

        The same arguments give the same bytes. A drive depends only on the seed, its split and
        its number. The meta of every drive holds the config, the seed and both entropies.

        Raises:
            BadInput: the folder holds a store already, or a count is too small.
        """
        root = Path(root)
        if (root / "manifest.json").exists():
            raise BadInput(f"{root}: holds a token store already; choose another folder")
        at_least(1, num_train=num_train)
        at_least(0, num_test=num_test)
        at_least(2, steps=steps)
        writer = TokenStoreWriter(root, self.spec, ACTION_NAMES)
        meta = {
            "source": "known-entropy world",
            "config": asdict(self.config),
            "seed": seed,
            "nats_per_token": self.entropy(),
            "nats_per_token_without_actions": self.entropy(with_actions=False),
        }
        for index, (split, count) in enumerate((("train", num_train), ("test", num_test))):
            for number in range(count):
                tokens, actions = self.sample(steps, [seed, index, number])
                writer.write(f"{split}_{number:04d}", split, tokens, actions, meta)

    def _shift_index(
        self, actions: Float[np.ndarray, "*batch action"]
    ) -> Integer[np.ndarray, "*batch"]:
        if actions.shape[-1] != len(ACTION_NAMES) or not np.isin(actions, YAWS).all():
            raise BadInput(
                f"actions of shape {actions.shape}: give the one column {ACTION_NAMES[0]} "
                f"with values in {YAWS}, unnormalised"
            )
        return np.searchsorted(self._shifts, actions[..., 0].astype(int) % self.width)
