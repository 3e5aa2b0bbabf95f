"""Settings of the known-entropy world; imports no torch."""

import math
from dataclasses import dataclass, field

from drives.config import TokenSourceConfig, only_stores
from training.errors import BadInput
from training.ranges import at_least, share


@dataclass(frozen=True)
class KnownEntropyConfig:
    """The size and the noise of a known-entropy world.

    Attributes:
        grid: (T', H', W') tokens of a frame; T' is 1.
        vocab_size: V, the number of different tokens.
        resample_prob: p, the probability that a token is resampled, in (0, 1].
        yaw_probs: probability of each yaw -1, 0, 1.
        fps: frames per second, for the manifest.

    Raises:
        BadInput: a value outside its range.
    """

    grid: tuple[int, int, int] = (1, 4, 4)
    vocab_size: int = 8
    resample_prob: float = 0.15
    yaw_probs: tuple[float, float, float] = (0.3, 0.4, 0.3)
    fps: float = 10.0

    def __post_init__(self) -> None:
        at_least(1, grid=self.grid)
        # Exact entropies enumerate the equalities within a row: 2^(width - 1) of them.
        if len(self.grid) != 3 or self.grid[0] != 1 or self.grid[2] > 8:
            raise BadInput(f"grid={tuple(self.grid)}: give (1, height, width) with width <= 8")
        at_least(2, vocab_size=self.vocab_size)
        share(resample_prob=self.resample_prob)
        if self.resample_prob == 0:
            raise BadInput("resample_prob=0: a wrong action would cost infinitely many nats")
        probs = self.yaw_probs
        if len(probs) != 3 or min(probs) < 0 or not math.isclose(sum(probs), 1, abs_tol=1e-9):
            raise BadInput(f"yaw_probs={probs}: give three probabilities with sum 1")


@dataclass(frozen=True)
class KnownEntropySourceConfig(TokenSourceConfig):
    """Tokens of a `KnownEntropyWorld`, kept below `cache`.

    Attributes:
        root: folder of the store; empty: a folder below `cache`, with a hash of the settings.
        num_train, num_test: drives of each split.
        steps: frames of a drive.
        seed: of the drives.
        world: settings of the world.
    """

    root: str = ""
    num_train: int = 64
    num_test: int = 8
    steps: int = 1000
    seed: int = 0
    world: KnownEntropyConfig = field(default_factory=KnownEntropyConfig)

    def __post_init__(self) -> None:
        only_stores(self.format, "a world of known entropy")
        super().__post_init__()
        at_least(1, "data.source.", num_train=self.num_train)
        at_least(0, "data.source.", seed=self.seed)
        at_least(2, "data.source.", steps=self.steps)
