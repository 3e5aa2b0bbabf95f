"""Settings of the command and of its probes; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizer.config import EncodeConfig
from training.errors import BadInput
from training.ranges import at_least, below_one, positive

MAX_LAG = 8  # rows


@dataclass(frozen=True, kw_only=True)
class AttainableSettings:
    """Which data is asked, and where the answers go.

    Attributes:
        tokenizer: of drives: a shipped one, a run folder, or a checkpoint folder.
        encode: how drives are encoded on first use.
        out: the answers, beside finished probes, which are kept.
        device: null: a GPU if there is one.
    """

    tokenizer: str = "carracing"
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    out: str = "${paths.runs}/attainable"
    device: str | None = None


@dataclass(frozen=True)
class ProbeConfig:
    """How much is asked, and by which probes.

    Attributes:
        horizons: distances in time steps between the frames of a window; asked for is the mean of
            the rows that lead to its last frame.
        lags: rows by which the actions are moved, at the first horizon; 0 is always asked.
        seeds: pairs of probes; one seed initialises both of a pair.
        context: frames of a window, the one that may tell of the row included.
        num_windows: windows of held-out drives that are scored.
        centres: typical action rows; the nearest of them stands for a row.
        steps: optimizer steps of a probe.
        batch_size: windows of a step.
        learning_rate: the highest; the schedule is one cosine.
        weight_decay: of matrices.
        dropout: of what a probe read of the frames.
        dim: width of an embedded token; layers are twice as wide.
        look_back: side of the window of cells that each cell is compared with, frame to frame.
        checks: how often a probe is compared on other held-out windows; the best state counts.
    """

    horizons: Sequence[int] = (1, 2, 4, 8)
    lags: Sequence[int] = (-3, -2, -1, 0, 1, 2, 3)
    seeds: int = 3
    context: int = 3
    num_windows: int = 512
    centres: int = 32
    steps: int = 160
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    dropout: float = 0.2
    dim: int = 24
    look_back: int = 5
    checks: int = 4

    def __post_init__(self) -> None:
        if not self.horizons or len(set(self.horizons)) < len(self.horizons):
            raise BadInput(f"probe.horizons={list(self.horizons)}: name each distance once")
        at_least(1, "probe.", horizons=self.horizons, seeds=self.seeds, steps=self.steps)
        if any(abs(lag) > MAX_LAG for lag in self.lags):
            raise BadInput(f"probe.lags={list(self.lags)}: give rows from -{MAX_LAG} to {MAX_LAG}")
        at_least(1, "probe.", batch_size=self.batch_size, checks=self.checks, dim=self.dim)
        at_least(2, "probe.", context=self.context, num_windows=self.num_windows)
        at_least(2, "probe.", centres=self.centres)
        at_least(0.0, "probe.", weight_decay=self.weight_decay)
        positive("probe.", learning_rate=self.learning_rate)
        below_one("probe.", dropout=self.dropout)
        if self.look_back < 1 or self.look_back % 2 == 0:
            raise BadInput(f"probe.look_back={self.look_back}: give an odd number from 1 on")

    @property
    def asked(self) -> list[tuple[int, int]]:
        """(horizon, lag) of every estimate; those without a lag first."""
        first = self.horizons[0]
        late = sorted({*self.lags} - {0}, key=lambda lag: (abs(lag), lag))
        return [*((horizon, 0) for horizon in self.horizons), *((first, lag) for lag in late)]
