"""Settings of clips of frames; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.ranges import at_least, share

FITS = ("same", "cover")  # of frames of another aspect, see `drives.clips.shapes.judge_sizes`


@dataclass(frozen=True)
class BalanceConfig:
    """Which features to balance, and how far (GAIA-1, Hu et al. 2023, arXiv 2309.17080, sec. 4.1).

    A clip's weight is p^-alpha. p is the empirical joint probability of the clip's cell over all
    features. A cell is then drawn in proportion to p^(1 - alpha).

    Attributes:
        features: action columns (the mean over the clip counts), or entries of `drive.json`
            (numbers and names; "weather.rain" is the entry rain of the entry weather).
        alpha: 0 keeps the order of a run without balancing; 1 makes all cells equally frequent.
        bins: number of equal-width bins for a number that takes more different values.

    Raises:
        BadInput: alpha outside [0, 1], or fewer than two bins.
    """

    features: Sequence[str] = ()
    alpha: float = 0.5
    bins: int = 10

    def __post_init__(self) -> None:
        share("data.balance.", alpha=self.alpha)
        at_least(2, "data.balance.", bins=self.bins)
