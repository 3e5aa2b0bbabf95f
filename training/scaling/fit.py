"""Fits the scaling law L(x) = c + (x / a)^b, with intervals.

The form is from GAIA-1 (Hu et al. 2023, arXiv 2309.17080, section on scaling) and from Henighan
et al. (2020, arXiv 2010.14701, equation 1.1). x is compute or the number of parameters. c is the
floor: no size has a lower loss. b < 0 is the exponent of the loss above the floor.

Each size is one point; its loss is the mean over seeds. More seeds reduce the noise of a point,
only the residuals of n sizes show the error of the law. Errors are relative to the loss, equal
for all sizes, and unknown: s^2 = S_min / (n - 3), or the variance between seeds if that is
larger. For given (b, c) the law is linear in A = a^-b. So the sum of squares S is computed on a
grid of (b, c), and all intervals come from this grid. The set

    S(b, c) <= s^2 (n - 3 + t^2)                                                      (1)

holds the laws that the points allow (profile likelihood; t is Student's quantile for n - 3
degrees of freedom). The interval of a parameter is its range in this set. The band of a new run
is the range of losses that, as one more point, keep (1) true for some (b, c). It covers the error
of the law and the error of the new run. For a linear law, both are the standard intervals. With
one degree of freedom they are wide, correctly so.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from training.errors import BadInput

NUM_PARAMETERS = 3  # a, b, c
STEEPEST, FLATTEST = -3.0, -0.01  # range of b
GRID = 240  # values of b and of c
ROUNDS = 12  # times that the grid zooms in


@dataclass(frozen=True, eq=False)  # compared by identity: grids are cached by law
class PowerLaw:
    """A fitted L(x) = c + (x / a)^b.

    Attributes:
        a: the x with a loss of one nat above the floor.
        b: exponent, negative.
        c: floor in nats per token, 0 or more.
        noise: s, relative to the loss.
        x, loss: the fitted points, one per size.
    """

    a: float
    b: float
    c: float
    noise: float
    x: Float[np.ndarray, " point"]
    loss: Float[np.ndarray, " point"]

    @property
    def degrees_of_freedom(self) -> int:
        return len(self.x) - NUM_PARAMETERS

    def at(self, x: float) -> float:
        """Predicted loss at `x`."""
        return float(self.c + (x / self.a) ** self.b)

    def band(self, x: float, confidence: float = 0.9) -> tuple[float, float]:
        """Interval that holds the loss of a new run at `x` with this confidence."""
        region = _region(self, confidence)
        power = (x / region.unit) ** region.b[:, None]
        loss = region.c[None, :] + region.amplitude * power
        leverage = (power / loss) ** 2 / region.curvature[:, None]
        reach = loss * np.sqrt(region.slack * (1 + leverage))
        return (
            float(np.where(region.inside, loss - reach, np.inf).min()),
            float(np.where(region.inside, loss + reach, -np.inf).max()),
        )

    def floor_interval(self, confidence: float = 0.9) -> tuple[float, float]:
        """Interval of the floor; it begins at 0 if the points give no lower bound."""
        region = _region(self, confidence)
        kept = region.c[region.inside.any(axis=0)]
        return float(kept.min()), float(kept.max())

    def exponent_interval(self, confidence: float = 0.9) -> tuple[float, float]:
        """Interval of the exponent."""
        region = _region(self, confidence)
        kept = region.b[region.inside.any(axis=1)]
        return float(kept.min()), float(kept.max())


def fit_power_law(x: Float[np.ndarray, " point"], loss: Float[np.ndarray, " point"]) -> PowerLaw:
    """Fit by least squares of relative errors, with c >= 0 and b < 0.

    Args:
        x: compute in FLOP, or number of parameters, of every run; positive.
        loss: final loss of every run in nats per token.
    Raises:
        BadInput: there are too few sizes, or the loss does not fall with x.
    """
    runs, losses = np.asarray(x, float), np.asarray(loss, float)
    x, size = np.unique(runs, return_inverse=True)
    if len(x) <= NUM_PARAMETERS:
        raise BadInput(
            f"{len(runs)} finished runs at {len(x)} sizes; a law with three constants needs at "
            f"least {NUM_PARAMETERS + 1} sizes: add rungs"
        )
    loss = np.bincount(size, losses) / np.bincount(size)
    if not (np.isfinite(loss).all() and (x > 0).all() and (loss > 0).all()):
        raise BadInput(f"losses {loss.tolist()} at {x.tolist()}: all have to be positive numbers")
    unit = _unit(x)
    low, high = STEEPEST, FLATTEST
    for _ in range(ROUNDS):  # S(b), minimised over c and A, has one minimum: zoom in
        exponents = np.linspace(low, high, GRID)
        squares = [_best_floor(x / unit, loss, b)[0] for b in exponents]
        best, step = exponents[int(np.argmin(squares))], exponents[1] - exponents[0]
        low, high = max(STEEPEST, best - 2 * step), min(FLATTEST, best + 2 * step)
    least, c, amplitude = _best_floor(x / unit, loss, float(best))
    if amplitude <= 0:
        raise BadInput(
            f"the losses do not fall as x grows ({', '.join(f'{y:.4g}' for y in loss)}); train "
            "longer, check the learning rate, or choose sizes further apart"
        )
    a = unit * amplitude ** (-1 / best)
    noise = math.sqrt(least / (len(x) - NUM_PARAMETERS))
    if len(runs) > len(x):
        strays = losses / loss[size] - 1
        noise = max(noise, math.sqrt(strays @ strays / (len(runs) - len(x))))
    return PowerLaw(float(a), float(best), c, noise, x, loss)


def t_quantile(confidence: float, dof: int) -> float:
    """The t with P(|T| > t) = 1 - confidence for Student's T."""
    return float(stdtrit(dof, (1 + confidence) / 2))


@dataclass(frozen=True)
class _Region:
    """A grid of laws around the set (1); `squares` is S, axis 0 is b."""

    unit: float
    b: Float[np.ndarray, " b"]
    c: Float[np.ndarray, " c"]
    amplitude: Float[np.ndarray, "b c"]
    curvature: Float[np.ndarray, " b"]
    squares: Float[np.ndarray, "b c"]
    limit: float

    @property
    def inside(self) -> np.ndarray:
        return (self.squares <= self.limit) & (self.amplitude > 0)

    @property
    def slack(self) -> np.ndarray:
        return np.clip(self.limit - self.squares, 0, None)


@lru_cache(maxsize=8)
def _region(law: PowerLaw, confidence: float) -> _Region:
    """The grid, zoomed in until the set (1) fills it."""
    if not 0 < confidence < 1:
        raise BadInput(f"confidence={confidence}: give a share between 0 and 1, such as 0.9")
    dof = law.degrees_of_freedom
    # Rounding errors limit the precision of a fit.
    noise = max(law.noise, 1e-6)
    limit = noise**2 * (dof + t_quantile(confidence, dof) ** 2)
    box = (STEEPEST, FLATTEST, 0.0, float(law.loss.max()))
    for _ in range(ROUNDS):
        # The best law is always a node of the grid, even if the set is very small.
        b = np.unique(np.append(np.linspace(*box[:2], GRID), law.b))
        c = np.unique(np.append(np.linspace(*box[2:], GRID), law.c))
        region = _squares(law, b, c, limit)
        ends = [(axis, np.flatnonzero(region.inside.any(axis=i))) for i, axis in ((1, b), (0, c))]
        smaller = [
            float(axis[i])
            for axis, kept in ends
            for i in (max(kept[0] - 1, 0), min(kept[-1] + 1, len(axis) - 1))
        ]
        if np.allclose(smaller, box, rtol=1e-3, atol=1e-12):
            break
        box = (smaller[0], smaller[1], smaller[2], smaller[3])
    return region


def _squares(law: PowerLaw, b: np.ndarray, c: np.ndarray, limit: float) -> _Region:
    """S over a grid of laws, each with its best amplitude."""
    unit = _unit(law.x)
    slope = (law.x / unit) ** b[:, None] / law.loss  # [b point], weighted by 1 / loss
    rest = 1 - c[:, None] / law.loss  # [c point]
    curvature = (slope**2).sum(axis=1)
    amplitude = np.clip(slope @ rest.T / curvature[:, None], 0, None)
    errors = rest[None] - amplitude[:, :, None] * slope[:, None]
    return _Region(unit, b, c, amplitude, curvature, (errors**2).sum(axis=2), limit)


def _best_floor(x: np.ndarray, loss: np.ndarray, b: float) -> tuple[float, float, float]:
    """Minimal S for one exponent, with its floor and its amplitude."""
    power = x**b
    columns = np.stack([1 / loss, power / loss], axis=1)
    (c, amplitude), *_ = np.linalg.lstsq(columns, np.ones(len(x)), rcond=None)
    if c < 0:
        c, amplitude = 0.0, columns[:, 1].sum() / (columns[:, 1] ** 2).sum()
    errors = 1 - columns @ np.array([c, amplitude])
    return float(errors @ errors), float(c), float(amplitude)


def _unit(x: np.ndarray) -> float:
    """Geometric mean of x, so that powers of x / unit stay near 1."""
    return float(np.exp(np.log(x).mean()))
