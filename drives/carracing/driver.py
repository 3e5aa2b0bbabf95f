"""A scripted driver that follows a track with human-like variety.

It changes speed, moves across the road, swerves, leaves the road and returns, brakes late or early
before bends, and sometimes stands still. One seed draws a style (who drives) and a plan (what
happens when).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

WHEELBASE_M = 3.24
FULL_LOCK_RAD = 0.4
# Measured on the car with the pedals of `drives.carracing.simulator` (ENV_ACTION_PER_UNIT).
FULL_THROTTLE_W_PER_KG = 436.0
FULL_BRAKE_MPS2 = 31.0

# kind: (probability, shortest, longest in seconds). Speed and lane changes last until the next.
MANOEUVRES = {
    "speed": (0.26, 0.5, 2.0),
    "lane": (0.28, 0.5, 2.0),
    "swerve": (0.20, 1.5, 3.0),
    "off_road": (0.14, 2.0, 4.0),
    "stop": (0.12, 3.0, 6.0),
}


@dataclass(frozen=True)
class DriverStyle:
    """The style of a driver, constant over a drive.

    Attributes:
        accel_mps2, decel_mps2: strength of the pedals; a high decel brakes late.
        bend_mps2: lateral acceleration taken in bends.
        lookahead_s: distance of the steering point; a short one wobbles, a long one cuts corners.
        lateral_mps: speed across the road.
        unsteadiness: standard deviation of the steering noise, in units of steering.
    """

    cruise_mps: float
    accel_mps2: float
    decel_mps2: float
    bend_mps2: float
    lookahead_s: float
    lateral_mps: float
    unsteadiness: float


@dataclass(frozen=True)
class Manoeuvre:
    """One entry of a plan; `value` is m/s for "speed", else metres to the left ("stop": 0)."""

    kind: str
    start_s: float
    end_s: float
    value: float


def draw_style(rng: np.random.Generator) -> DriverStyle:
    """A driver, from careful to sporty."""
    return DriverStyle(
        cruise_mps=float(rng.uniform(9.0, 26.0)),
        accel_mps2=float(rng.uniform(3.0, 12.0)),
        decel_mps2=float(rng.uniform(6.0, 22.0)),
        bend_mps2=float(rng.uniform(8.0, 22.0)),
        lookahead_s=float(rng.uniform(0.4, 0.8)),
        lateral_mps=float(rng.uniform(1.5, 5.0)),
        unsteadiness=float(rng.uniform(0.0, 0.03)),
    )


def draw_plan(
    rng: np.random.Generator, style: DriverStyle, duration_s: float
) -> tuple[Manoeuvre, ...]:
    """Manoeuvres between 0 and `duration_s`, in order and without overlaps."""
    kinds = list(MANOEUVRES)
    shares = [MANOEUVRES[kind][0] for kind in kinds]
    plan = [Manoeuvre("lane", 0.0, 0.0, float(rng.uniform(-3.0, 3.0)))]
    start = float(rng.uniform(0.5, 4.0))
    while start < duration_s:
        kind = kinds[int(rng.choice(len(kinds), p=shares))]
        end = start + float(rng.uniform(*MANOEUVRES[kind][1:]))
        side = float(rng.choice([-1.0, 1.0]))
        value = {
            "speed": style.cruise_mps * float(rng.uniform(0.5, 1.4)),
            "lane": float(rng.uniform(-4.0, 4.0)),
            "swerve": side * float(rng.uniform(2.0, 4.5)),
            "off_road": side * float(rng.uniform(10.0, 13.0)),
            "stop": 0.0,
        }[kind]
        plan.append(Manoeuvre(kind, start, end, value))
        start = end + float(rng.uniform(0.5, 4.0))
    return tuple(plan)


class Centreline:
    """The middle of a closed road, in driving direction."""

    def __init__(self, points: Float[np.ndarray, "point 2"]) -> None:
        step = np.roll(points, -1, axis=0) - points
        length = np.linalg.norm(step, axis=1)
        turn = np.angle(np.exp(1j * np.diff(np.unwrap(np.arctan2(step[:, 1], step[:, 0])))))
        turn = np.append(turn, 0.0)  # the seam of head and tail
        self.points = points
        self.tangents = step / length[:, None]
        self.spacing_m = float(np.median(length))
        smooth = sum(np.roll(turn, shift) for shift in (-1, 0, 1)) / 3
        self.curvature_per_m = smooth / self.spacing_m

    def locate(self, position: tuple[float, float], near: float) -> float:
        """Fractional index of the point nearest to `position`, searched only around `near`.

        A search everywhere would jump between parts of the track that pass close by.
        """
        num = len(self.points)
        around = (round(near) + np.arange(-4, 9)) % num
        offsets = np.asarray(position) - self.points[around]
        best = int(np.argmin((offsets**2).sum(axis=1)))
        along = float(offsets[best] @ self.tangents[around[best]]) / self.spacing_m
        return float(around[best] + np.clip(along, -0.5, 0.5)) % num

    def point(self, index: float, left_m: float) -> tuple[float, float]:
        """The point at a fractional index, moved `left_m` metres to the left."""
        low = math.floor(index)
        here, share = low % len(self.points), index - low
        x, y = self.points[here] * (1 - share) + self.points[(here + 1) % len(self.points)] * share
        along_x, along_y = self.tangents[here]
        return float(x - left_m * along_y), float(y + left_m * along_x)

    def speed_limits(self, style: DriverStyle) -> Float[np.ndarray, " point"]:
        """Highest speed (m/s) at each point that still allows every bend ahead."""
        bend = np.sqrt(style.bend_mps2 / np.maximum(np.abs(self.curvature_per_m), 1e-3))
        limits = bend.copy()
        for index in range(2 * len(limits) - 1, -1, -1):  # twice round, because the line is closed
            here, ahead = index % len(limits), (index + 1) % len(limits)
            reach = math.sqrt(limits[ahead] ** 2 + 2 * style.decel_mps2 * self.spacing_m)
            limits[here] = min(bend[here], reach)
        return limits


class ScriptedDriver:
    """Computes steering and pedals from the car's position, every `dt_s` seconds.

    Steering is pure pursuit (Coulter, 1992, CMU-RI-TR-92-01, eq. 2) of a point ahead on the
    wanted line, with noise (an Ornstein-Uhlenbeck process); pedals follow a wanted speed.
    """

    def __init__(
        self,
        line: Centreline,
        style: DriverStyle,
        plan: tuple[Manoeuvre, ...],
        rng: np.random.Generator,
        start: float,
        dt_s: float,
    ) -> None:
        self.line, self.style, self.plan, self.rng, self.dt_s = line, style, plan, rng, dt_s
        self.limits = line.speed_limits(style)
        self.time_s, self.index, self.left_m, self.noise = 0.0, start, 0.0, 0.0

    def act(
        self, position: tuple[float, float], heading_rad: float, speed_mps: float
    ) -> tuple[float, float, float]:
        """Steering (+1 = full right), throttle and brake (0 to 1) for the next `dt_s` seconds.

        `heading_rad` is 0 along the y axis and grows to the left, as in Box2D.
        """
        self.index = self.line.locate(position, self.index)
        left = self._wanted_left(speed_mps)
        ahead = max(5.0, self.style.lookahead_s * speed_mps) / self.line.spacing_m
        target = self.line.point(self.index + ahead, left)
        steering = self._steering(position, heading_rad, target)
        throttle, brake = self._pedals(speed_mps)
        self.time_s += self.dt_s
        return steering, throttle, brake

    def _latest(self, kind: str) -> Manoeuvre | None:
        begun = [m for m in self.plan if m.kind == kind and m.start_s <= self.time_s]
        return begun[-1] if begun else None

    def _ongoing(self) -> Manoeuvre | None:
        return next((m for m in self.plan if m.start_s <= self.time_s < m.end_s), None)

    def _wanted_left(self, speed_mps: float) -> float:
        """Wanted distance from the centreline, metres to the left."""
        now, lane = self._ongoing(), self._latest("lane")
        goal = lane.value if lane else 0.0
        rate = self.style.lateral_mps * min(1.0, speed_mps / 5.0)
        if now and now.kind == "off_road":
            goal, rate = now.value, 2 * rate + 2.0
        elif abs(self.left_m) > 5.0:  # hurry back
            rate = 2 * rate + 2.0
        self.left_m += float(np.clip(goal - self.left_m, -rate * self.dt_s, rate * self.dt_s))
        if now and now.kind == "swerve":
            share = (self.time_s - now.start_s) / (now.end_s - now.start_s)
            return self.left_m + now.value * math.sin(2 * math.pi * share)
        return self.left_m

    def _steering(
        self, position: tuple[float, float], heading_rad: float, target: tuple[float, float]
    ) -> float:
        x, y = target[0] - position[0], target[1] - position[1]
        forward = -x * math.sin(heading_rad) + y * math.cos(heading_rad)
        left = -x * math.cos(heading_rad) - y * math.sin(heading_rad)
        if forward < 0:  # the line is behind: turn round
            angle = math.copysign(FULL_LOCK_RAD, left)
        else:
            angle = math.atan(WHEELBASE_M * 2 * left / (x * x + y * y))
        pull = self.dt_s / 0.5  # the noise decays within half a second
        self.noise += -pull * self.noise + math.sqrt(2 * pull) * float(
            self.rng.normal(0.0, self.style.unsteadiness)
        )
        return float(np.clip(-angle / FULL_LOCK_RAD + self.noise, -1.0, 1.0))

    def _pedals(self, speed_mps: float) -> tuple[float, float]:
        now, latest = self._ongoing(), self._latest("speed")
        wanted = latest.value if latest else self.style.cruise_mps
        wanted = min(wanted, float(self.limits[int(self.index) % len(self.limits)]))
        if now and now.kind == "off_road":
            wanted *= 0.7
        if now and now.kind == "stop":
            wanted = 0.0
            if speed_mps < 1.0:
                return 0.0, 0.5  # hold the car
        gap = (wanted - speed_mps) / 0.4
        if gap >= 0:
            accel = min(gap, self.style.accel_mps2)
            return min(1.0, accel * (speed_mps + 3.0) / FULL_THROTTLE_W_PER_KG), 0.0
        if gap > -1.5:  # let it roll
            return 0.0, 0.0
        return 0.0, min(1.0, min(-gap, self.style.decel_mps2) / FULL_BRAKE_MPS2)
