"""Settings of the command and of its probes; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizer.config import EncodeConfig
from training.errors import BadInput
from training.ranges import at_least, positive
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

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
        horizons: distances in time steps between the frames of a window; the actions between two
            frames are all given.
        lags: rows by which the actions are moved, at the first horizon; 0 is always asked.
        seeds: pairs of probes; one seed initialises both of a pair.
        context: frames of a window, the predicted one included.
        num_windows: windows of held-out drives that are scored.
        steps: optimizer steps of a probe.
        batch_size: windows of a step.
        learning_rate: the highest, of all but matrices; the schedule is one cycle.
        muon_lr: that of matrices.
        weight_decay: of matrices.
        dropout: of the probes.
        dim: width of a probe.
        num_layers: layers of the trunk of a probe.
        inner_layers: causal layers over the cells of the predicted frame.
        num_heads: attention heads of a probe.
        look_back: side of the window of the previous frame that is added to the input.
        centres: actions of the mixture that stands for no action.
        checks: how often a probe is compared on other held-out windows; the best state counts.
    """

    horizons: Sequence[int] = (1, 2, 4, 8)
    lags: Sequence[int] = (-3, -2, -1, 0, 1, 2, 3)
    seeds: int = 3
    context: int = 3
    num_windows: int = 256
    steps: int = 600
    batch_size: int = 16
    learning_rate: float = 3e-3
    muon_lr: float = 1e-2
    weight_decay: float = 0.05
    dropout: float = 0.0
    dim: int = 96
    num_layers: int = 2
    inner_layers: int = 2
    num_heads: int = 3
    look_back: int = 5
    centres: int = 32
    checks: int = 6

    def __post_init__(self) -> None:
        if not self.horizons or len(set(self.horizons)) < len(self.horizons):
            raise BadInput(f"probe.horizons={list(self.horizons)}: name each distance once")
        at_least(1, "probe.", horizons=self.horizons, seeds=self.seeds, steps=self.steps)
        if any(abs(lag) > MAX_LAG for lag in self.lags):
            raise BadInput(f"probe.lags={list(self.lags)}: give rows from -{MAX_LAG} to {MAX_LAG}")
        at_least(1, "probe.", batch_size=self.batch_size, checks=self.checks, centres=self.centres)
        at_least(2, "probe.", context=self.context, num_windows=self.num_windows)
        at_least(0.0, "probe.", weight_decay=self.weight_decay)
        positive("probe.", learning_rate=self.learning_rate, muon_lr=self.muon_lr)
        try:
            _ = self.network
        except BadInput as error:
            raise BadInput(f"probe.{error}") from error

    @property
    def network(self) -> WholeFrameConfig:
        """Shape of a probe; BadInput, as of a world model's, for what no network can have."""
        return WholeFrameConfig(
            context_steps=self.context,
            layout=LayoutConfig(actions="continuous"),
            dim=self.dim,
            num_layers=self.num_layers,
            inner_layers=self.inner_layers,
            num_heads=self.num_heads,
            look_back=self.look_back,
            dropout=self.dropout,
        )

    @property
    def asked(self) -> list[tuple[int, int]]:
        """(horizon, lag) of every estimate; those without a lag first."""
        first = self.horizons[0]
        late = sorted({*self.lags} - {0}, key=lambda lag: (abs(lag), lag))
        return [*((horizon, 0) for horizon in self.horizons), *((first, lag) for lag in late)]
