"""Policies of graded skill that see pictures, so that they drive in a dream as on the road."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from drives.carracing.driver import (
    FULL_BRAKE_MPS2,
    FULL_LOCK_RAD,
    FULL_THROTTLE_W_PER_KG,
    WHEELBASE_M,
)
from worldmodel.proving_ground.road import Road, read_road

COMMANDS = ("steering", "throttle", "brake")
Commands = Float[Tensor, "car command"]
MOST_THROTTLE = 0.25  # of the embedded drives; beyond it a dream is a guess
ROLL_MPS2 = 1.5  # a weaker brake is none: the car rolls
LEAST_M = 6.0  # of the point that is steered to
BENDS_M = (9.0, 15.0, 21.0, 27.0)  # where bends are looked for
SIGHT_MPS2 = 6.0  # a car stops within what it sees


@dataclass(frozen=True)
class DriverView:
    """What a policy is shown after a step.

    Attributes:
        tokens: of the newest time steps, the oldest first.
        speed_mps: of the newest step; in a dream it follows the commands.
    """

    frames: UInt8[Tensor, "car 3 height width"]
    tokens: Int[Tensor, "car time rows columns"]
    speed_mps: Float[Tensor, " car"]

    @cached_property
    def road(self) -> Road:
        return read_road(self.frames)

    def part(self, cars: slice) -> "DriverView":
        """Some of the cars; the road is read once for all."""
        some = DriverView(self.frames[cars], self.tokens[cars], self.speed_mps[cars])
        road = self.road
        some.__dict__["road"] = Road(road.right_m[cars], road.ahead_m, road.seen_m[cars])
        return some


Driver = Callable[[DriverView], Commands]


class Policy(Protocol):
    """A policy, of which many cars may be driven at once."""

    @property
    def name(self) -> str: ...

    def driver(self, num_cars: int, seed: int, device: str) -> Driver:
        """A driver of new cars, with a memory of its own."""


def pedals(
    accel_mps2: Float[Tensor, " car"], speed_mps: Float[Tensor, " car"]
) -> tuple[Float[Tensor, " car"], Float[Tensor, " car"]]:
    """Throttle and brake for an acceleration, as of `drives.carracing.driver`."""
    throttle = accel_mps2.clamp(min=0) * (speed_mps + 3.0) / FULL_THROTTLE_W_PER_KG
    brake = torch.where(accel_mps2 < -ROLL_MPS2, -accel_mps2 / FULL_BRAKE_MPS2, 0.0)
    return throttle.clamp(max=MOST_THROTTLE), brake.clamp(max=1)


@dataclass(frozen=True)
class RoadFollower:
    """Steers to a point of the road that it sees, slower before bends; and what spoils it.

    Pure pursuit, as the scripted driver of the embedded drives, which reads the simulator instead.

    Attributes:
        cruise_mps: highest speed.
        bend_mps2: lateral acceleration in bends.
        lookahead_s: distance of the point, at least `LEAST_M`.
        gain: of the wheel; 1 is right.
        bias: of the wheel, positive to the right.
        noise: standard deviation of the wheel, of an Ornstein-Uhlenbeck process.
        delay: steps until a command is obeyed.
    """

    name: str
    cruise_mps: float = 16.0
    bend_mps2: float = 12.0
    lookahead_s: float = 0.6
    gain: float = 1.0
    bias: float = 0.0
    noise: float = 0.0
    delay: int = 0

    def driver(self, num_cars: int, seed: int, device: str) -> Driver:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.zeros(num_cars)
        waiting = deque([torch.zeros(num_cars, len(COMMANDS), device=device)] * self.delay)

        def drive(seen: DriverView) -> Commands:
            steering = self.gain * self._wheel(seen) + self.bias
            drawn = torch.randn(num_cars, generator=generator) * self.noise
            noise.mul_(0.8).add_(0.6 * drawn)  # 0.8^2 + 0.6^2 = 1
            steering = (steering + noise.to(device)).clamp(-1, 1)
            accel = ((self._speed(seen.road) - seen.speed_mps) / 0.4).clamp(-12, 6)
            waiting.append(torch.stack([steering, *pedals(accel, seen.speed_mps)], 1))
            return waiting.popleft()

        return drive

    def _wheel(self, seen: DriverView) -> Float[Tensor, " car"]:
        ahead = (self.lookahead_s * seen.speed_mps).clamp(min=LEAST_M)
        ahead = torch.minimum(ahead, seen.road.seen_m.clamp(min=LEAST_M))
        right = seen.road.at(ahead)
        angle = torch.atan(2 * WHEELBASE_M * right / (right**2 + ahead**2))
        return angle / FULL_LOCK_RAD

    def _speed(self, road: Road) -> Float[Tensor, " car"]:
        """Wanted speed: the bends that are seen allow it, and the car stops within sight."""
        bend = torch.full_like(road.seen_m, 1e-3)
        for distance in BENDS_M:
            ahead = torch.full_like(bend, distance)
            right = road.at(ahead)
            curved = 2 * right.abs() / (right**2 + ahead**2)
            bend = torch.maximum(bend, torch.where(road.seen_m >= distance, curved, 0.0))
        allowed = (self.bend_mps2 / bend).sqrt()
        sight = (2 * SIGHT_MPS2 * road.seen_m.clamp(min=1.0)).sqrt()
        return torch.minimum(allowed, sight).clamp(max=self.cruise_mps)


NEAR_M = (6.0, 10.0, 16.0, 24.0)
FEATURES = len(NEAR_M) + 6
STRONGEST_MPS2 = 8.0


@dataclass(frozen=True)
class LinearPolicy:
    """Linear in what the picture says of the road, and in the speed: ten numbers.

    A mirrored picture turns the wheel to the other side and changes no pedal. So the wheel reads
    the places of the road, and the pedals read how much it bends.

    Attributes:
        weights: of one policy, or of many candidates that drive side by side; those of the wheel
            first.
    """

    name: str
    weights: Float[Tensor, "candidate feature"] = field(repr=False)

    def driver(self, num_cars: int, seed: int, device: str) -> Driver:
        weights = self.weights.to(device).repeat_interleave(num_cars // len(self.weights), 0)
        sizes = len(NEAR_M), FEATURES - len(NEAR_M)

        def drive(seen: DriverView) -> Commands:
            parts = zip(weights.split(sizes, 1), features(seen).split(sizes, 1), strict=True)
            wheel, pedal = ((own * read).sum(1) for own, read in parts)
            accel = STRONGEST_MPS2 * torch.tanh(pedal)
            return torch.stack([wheel.clamp(-1, 1), *pedals(accel, seen.speed_mps)], 1)

        return drive


def features(seen: DriverView) -> Float[Tensor, "car feature"]:
    """About 1 each: places of the road; how it bends, how far it is seen, the speed, and 1."""
    road, speed = seen.road, seen.speed_mps
    right = [road.at(torch.full_like(speed, d)) / (d / 2) for d in NEAR_M]
    bends = [one.abs() for one in right[1:]]
    return torch.stack(
        [*right, *bends, road.seen_m / 20 - 1, speed / 10 - 1, torch.ones_like(speed)], 1
    )


def graded(num: int | None = None) -> list[RoadFollower]:
    """Ten road followers, from good to useless."""
    all_ = [
        RoadFollower("road follower"),
        RoadFollower("noise 0.15", noise=0.15),
        RoadFollower("slow", cruise_mps=8.0),
        RoadFollower("delay 0.2 s", delay=2),
        RoadFollower("gain 0.4", gain=0.4),
        RoadFollower("fast", cruise_mps=28.0, bend_mps2=math.inf),
        RoadFollower("noise 0.6", noise=0.6),
        RoadFollower("bias 0.15", bias=0.15),
        RoadFollower("delay 0.5 s", delay=5),
        RoadFollower("no wheel", gain=0.0),
    ]
    return all_[:num]
