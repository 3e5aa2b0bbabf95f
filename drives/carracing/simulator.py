"""CarRacing-v3 as a simulator: a car on a track, drawn only on request.

Loads pygame and Box2D; needs no display.
"""

import math
import os
import warnings

import numpy as np
from jaxtyping import Float, UInt8

from drives.carracing.driver import Centreline, ScriptedDriver

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # read when pygame is imported

import pygame

with warnings.catch_warnings():
    # Warnings of Box2D's bindings crash the interpreter where warnings are errors.
    warnings.filterwarnings("ignore", "builtin type .* has no __module__", DeprecationWarning)
    from gymnasium.envs.box2d.car_dynamics import Car
    from gymnasium.envs.box2d.car_racing import FPS, GRASS_DIM, CarRacing

# CarRacing's wheels stop at 0.4, and its full pedals are too strong: 1.0 of a drive is less.
ENV_ACTION_PER_UNIT = (0.4, 0.2, 0.1)
VIEW_M = 43.2  # side of the square in a frame, as far as CarRacing shows ahead
CAR_AT = 1 / 7  # height of the car in the frame
SUPERSAMPLE = 4


class Simulator(CarRacing):
    """CarRacing-v3, drawn on request from a fixed height, without instruments.

    Laps are ignored: the road keeps its colours, and `drive` goes on after a lap.

    Attributes:
        earned: CarRacing's rewards in the newest `advance`.
        off_road_s: for how long all wheels have been off the road.

    Args:
        env_seed: seed of the track.
        backwards: drive the track the other way round.
        start: place on the track, 0 to 1.
    """

    car: Car  # there from the first reset on
    earned: float = 0.0
    off_road_s: float = 0.0

    def __init__(self, env_seed: int, backwards: bool = False, start: float = 0.0) -> None:
        super().__init__()
        self.reset(seed=env_seed)
        points = np.array([point[2:4] for point in self.track])
        self.line = Centreline(points[::-1].copy() if backwards else points)
        self.start = int(start * len(points)) % len(points)
        # Copies, because CarRacing repaints the tiles that the car touched.
        grass = [(x, y) for x in range(-20, 20, 2) for y in range(-20, 20, 2)]
        square = np.array([(1, 0), (0, 0), (0, 1), (1, 1)])
        self._polygons = np.array(
            [GRASS_DIM * (square + corner) for corner in grass]
            + [polygon for polygon, _ in self.road_poly]
        )
        colours = [self.grass_color] * len(grass) + [colour for _, colour in self.road_poly]
        self._colours = np.array(colours).astype(int).tolist()
        self._place_car()

    def _render(self, mode: str) -> None:
        """Draw nothing: CarRacing would draw at each of the 50 physics steps of a second."""

    def _place_car(self) -> None:
        """Put a new car on the start point, in driving direction."""
        along = self.line.tangents[self.start]
        angle = math.atan2(-along[0], along[1])
        x, y = map(float, self.line.points[self.start])
        self.car.destroy()
        self.car = Car(self.world, 0.0, x, y)  # any other angle leaves the wheels behind
        cos, sin = math.cos(angle), math.sin(angle)
        for body in (self.car.hull, *self.car.wheels):
            dx, dy = body.position[0] - x, body.position[1] - y
            body.transform = ((x + cos * dx - sin * dy, y + sin * dx + cos * dy), angle)

    @property
    def position(self) -> tuple[float, float]:
        return self.car.hull.position[0], self.car.hull.position[1]

    @property
    def heading_rad(self) -> float:
        """0 along the y axis, growing to the left, never wrapped."""
        return self.car.hull.angle

    @property
    def speed_mps(self) -> float:
        return self.car.hull.linearVelocity.length

    @property
    def off_road(self) -> float:
        """Share of the wheels that are off the road."""
        return sum(not wheel.tiles for wheel in self.car.wheels) / len(self.car.wheels)

    @property
    def is_off_road(self) -> bool:
        return self.off_road == 1.0

    def drive(self, steering: float, throttle: float, brake: float) -> float:
        """One physics step (20 ms) with the controls of a drive file; its reward."""
        controls = np.array([steering, throttle, brake]) * ENV_ACTION_PER_UNIT
        return float(self.step(controls)[1])

    def advance(self, driver: ScriptedDriver, num_steps: int) -> Float[np.ndarray, " action"]:
        """Drive `num_steps` physics steps; return the action row of that interval."""
        before, rows, self.earned = self.heading_rad, [], 0.0
        for _ in range(num_steps):
            controls = driver.act(self.position, self.heading_rad, self.speed_mps)
            self.earned += self.drive(*controls)
            self.off_road_s = self.off_road_s + 1 / FPS if self.is_off_road else 0.0
            rows.append((*controls, self.speed_mps))
        yaw_rate = (self.heading_rad - before) * FPS / num_steps
        return np.array([*np.mean(rows, axis=0), yaw_rate], np.float32)

    def frame(self, size: int) -> UInt8[np.ndarray, "height width 3"]:
        """The camera image: `VIEW_M` metres square, the car near the bottom, heading up."""
        side = size * SUPERSAMPLE
        zoom, angle = side / VIEW_M, -self.heading_rad
        cos, sin = math.cos(angle), math.sin(angle)
        turn = zoom * np.array([(cos, sin), (-sin, cos)])
        shift = np.array([side / 2, side * CAR_AT]) - np.array(self.position) @ turn
        surface = pygame.Surface((side, side), depth=32)
        surface.fill(self.bg_color.astype(int).tolist())
        corners = self._polygons @ turn + shift
        low, high = corners.min(axis=1), corners.max(axis=1)
        for index in np.flatnonzero(((high >= 0) & (low <= side)).all(axis=1)):
            pygame.draw.polygon(surface, self._colours[index], corners[index].tolist())
        self.car.draw(surface, zoom, tuple(shift), angle, draw_particles=False)
        pixels = pygame.surfarray.pixels3d(surface)  # [x y channel], y upwards
        total = np.zeros((size, size, 3), np.uint16)
        for column, row in np.ndindex(SUPERSAMPLE, SUPERSAMPLE):
            total += pixels[column::SUPERSAMPLE, row::SUPERSAMPLE]
        mean = (total + SUPERSAMPLE**2 // 2) // SUPERSAMPLE**2
        return np.ascontiguousarray(mean.astype(np.uint8).swapaxes(0, 1)[::-1])
