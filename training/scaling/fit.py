"""L(x) = c + (x / a)^b: the fit of a scaling law, and how sure it is of what it says.

The form is GAIA-1's (Hu et al. 2023, arXiv 2309.17080, section on scaling) and Henighan et
al.'s (2020, arXiv 2010.14701, equation 1.1): x is compute or a number of parameters, c the loss
that no size goes below, b < 0 the slope of what is left above it.

A point is a size, its loss the mean over seeds: how far n sizes stray from the law shows how
wrong the law is, which no number of seeds does. Errors are taken as relative to the loss, equal
for all sizes, and unknown: s^2 = S_min / (n - 3), or the variance between seeds where that is
larger. For given (b, c) the law is linear in A = a^-b, so the sum of squares S is known on a
whole grid of (b, c) at once, and everything below is read off that grid:

    S(b, c) <= s^2 (n - 3 + t^2)                                                      (1)

is the set of laws that are not ruled out (profile likelihood; t is Student's quantile at n - 3
degrees of freedom). A parameter's interval is its range in that set. The band of a new run is the
range of losses which, added as one more point, leave (1) true for some (b, c): it holds the error
of the law and of the new run itself. Where the law is linear both are the textbook's intervals;
with one degree of freedom they are wide, and that is right.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from training.errors import BadInput

NUM_PARAMETERS = 3  # a, b, c
STEEPEST, FLATTEST = -3.0, -0.01  # range of b
GRID = 240  # values of b and of c
ROUNDS = 12  # times that the grid zooms in


@dataclass(frozen=True, eq=False)  # laws are compared by identity, so that grids can be cached
class PowerLaw:
    """A fitted L(x) = c + (x / a)^b.

    Attributes:
        a: the x at which the loss is one nat above the floor, in units of x.
        b: the exponent, negative.
        c: the floor, in nats per token, 0 or more.
        noise: s above, as a share of the loss.
        x, loss: the points behind it, one per size.
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
        """Loss that the law says for `x`."""
        return float(self.c + (x / self.a) ** self.b)

    def band(self, x: float, confidence: float = 0.9) -> tuple[float, float]:
        """Losses between which a new run at `x` falls with this confidence."""
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
        """Floors that the points do not rule out; it starts at 0 where they cannot tell."""
        region = _region(self, confidence)
        kept = region.c[region.inside.any(axis=0)]
        return float(kept.min()), float(kept.max())

    def exponent_interval(self, confidence: float = 0.9) -> tuple[float, float]:
        """Exponents that the points do not rule out."""
        region = _region(self, confidence)
        kept = region.b[region.inside.any(axis=1)]
        return float(kept.min()), float(kept.max())


def fit_power_law(x: Float[np.ndarray, " point"], loss: Float[np.ndarray, " point"]) -> PowerLaw:
    """Least squares of relative errors, with c >= 0 and b < 0.

    Args:
        x: compute in FLOP, or parameters, of every run; positive.
        loss: the losses reached, in nats per token.
    Raises:
        BadInput: too few sizes, or losses that do not fall as x grows.
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
    for _ in range(ROUNDS):  # S(b), minimised over c and A, has one valley: zoom into it
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
    """Student's t that is exceeded in absolute value with probability 1 - confidence.

    The density is integrated after t = sqrt(dof) tan(u), which makes it cos(u)^(dof - 1).
    """
    u = np.linspace(0, math.pi / 2, 20001)
    density = np.cos(u) ** (dof - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(math.sqrt(dof) * np.tan(np.interp(confidence, mass / mass[-1], u)))


@dataclass(frozen=True)
class _Region:
    """A grid of laws around those that (1) allows; S is `squares`, and b runs along axis 0."""

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
    """The grid, zoomed in until the laws that (1) allows fill it."""
    if not 0 < confidence < 1:
        raise BadInput(f"confidence={confidence}: give a share between 0 and 1, such as 0.9")
    dof = law.degrees_of_freedom
    # Rounding errors bound from below how exactly a law can be known.
    noise = max(law.noise, 1e-6)
    limit = noise**2 * (dof + t_quantile(confidence, dof) ** 2)
    box = (STEEPEST, FLATTEST, 0.0, float(law.loss.max()))
    for _ in range(ROUNDS):
        # The best law is always a corner of the grid, however small the set is.
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
    """S over a grid of laws, the amplitude of each at its best."""
    unit = _unit(law.x)
    slope = (law.x / unit) ** b[:, None] / law.loss  # [b point], weighted by 1 / loss
    rest = 1 - c[:, None] / law.loss  # [c point]
    curvature = (slope**2).sum(axis=1)
    amplitude = np.clip(slope @ rest.T / curvature[:, None], 0, None)
    errors = rest[None] - amplitude[:, :, None] * slope[:, None]
    return _Region(unit, b, c, amplitude, curvature, (errors**2).sum(axis=2), limit)


def _best_floor(x: np.ndarray, loss: np.ndarray, b: float) -> tuple[float, float, float]:
    """Least S for one exponent, with the floor and the amplitude that reach it."""
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
