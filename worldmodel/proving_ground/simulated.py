"""Policies on the road: CarRacing on tracks that no drive has, many tracks side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from drives.carracing.config import PHYSICS_FPS
from drives.carracing.driver import DriverStyle, ScriptedDriver
from drives.carracing.simulator import Simulator
from drives.clips.preprocessing import to_pixels
from tokenizer.load import Tokenizer, load_tokenizer
from training.loading.pools import process_pool
from worldmodel.proving_ground.policies import COMMANDS, DriverView, Policy

FIRST_TRACK = 10**9  # the seeds of embedded drives are smaller
CAREFUL = DriverStyle(14.0, 6.0, 12.0, 12.0, 0.5, 3.0, 0.0)
WARM_UP_S = 3.0
LEFT_FIELD = -100.0  # what CarRacing takes where the field ends, in each physics step
SCRIPTED = "scripted (reads the simulator)"


@dataclass(frozen=True)
class Course:
    """What is driven on a track.

    Attributes:
        track: number of an unseen track.
        steps: time steps behind the wheel.
        fps: time steps per second.
        past: frames before the first step that are kept.
        tokenizer: of the pictures' tokens.
    """

    track: int
    steps: int
    fps: float
    past: int
    tokenizer: str


@dataclass(frozen=True)
class Driven:
    """What came of it, with the scripted driver that reads the simulator as the last policy.

    Attributes:
        rewards: CarRacing's, of every step; none after the car has left the field.
        off_road: share of the wheels off the road after it.
        frames: the past, which all policies share.
        rows: actions between these frames.
    """

    rewards: Float[np.ndarray, "policy step"]
    off_road: Float[np.ndarray, "policy step"]
    frames: UInt8[np.ndarray, "time height width 3"]
    tokens: Int[np.ndarray, "time rows columns"]
    rows: Float[np.ndarray, "step action"]


class Held:
    """Stands in for the scripted driver: the same commands for a whole time step."""

    def __init__(self, commands: Sequence[float]) -> None:
        self.commands = commands

    def act(self, *_: object) -> tuple[float, float, float]:
        steering, throttle, brake = self.commands
        return steering, throttle, brake


def tokens_of(
    frame: UInt8[np.ndarray, "height width 3"], tokenizer: Tokenizer
) -> Int[torch.Tensor, "rows columns"]:
    """The grid of a simulator's picture."""
    pixels = to_pixels(torch.from_numpy(frame).movedim(-1, 0)[None])
    return tokenizer.encode(pixels).flatten(0, 1)


class CarOnTrack:
    """A car that a careful scripted driver has started; then anyone drives.

    Attributes:
        frames, tokens: what was looked at, the newest last.
        rows: actions of all steps.
        left_field: whether the car has left the field, where CarRacing ends.
    """

    def __init__(self, course: Course, tokenizer: Tokenizer) -> None:
        self.simulator, self.tokenizer = Simulator(FIRST_TRACK + course.track), tokenizer
        self.size = tokenizer.network.config.image_size[0]
        rng = np.random.default_rng(course.track)
        style = replace(CAREFUL, cruise_mps=float(rng.uniform(8.0, 18.0)))
        self.physics_steps = round(PHYSICS_FPS / course.fps)
        line, dt = self.simulator.line, 1 / PHYSICS_FPS
        self.scripted = ScriptedDriver(line, style, (), rng, 0.0, dt)
        self.frames: list[UInt8[np.ndarray, "height width 3"]] = []
        self.tokens: list[Int[torch.Tensor, "rows columns"]] = []
        self.rows: list[Float[np.ndarray, " action"]] = []
        self.left_field = False
        for left in range(round(WARM_UP_S * course.fps), -1, -1):
            if left < course.past:
                self.look()
            if left:
                self.drive(self.scripted)
        # From here on the reference drives as fast as the road allows it.
        self.scripted = ScriptedDriver(line, CAREFUL, (), rng, self.scripted.index, dt)

    def look(self) -> None:
        frame = self.simulator.frame(self.size)
        self.frames.append(frame)
        self.tokens.append(tokens_of(frame, self.tokenizer))

    def drive(self, driver: object) -> float:
        """Drive a time step; CarRacing's reward, and none after the car has left the field."""
        if self.left_field:
            return 0.0
        self.rows.append(self.simulator.advance(driver, self.physics_steps))  # type: ignore[arg-type]
        self.left_field = self.simulator.earned <= LEFT_FIELD
        return max(self.simulator.earned, LEFT_FIELD)

    @property
    def seen(self) -> DriverView:
        frame = torch.from_numpy(self.frames[-1]).movedim(-1, 0)[None]
        speed = torch.tensor([float(self.rows[-1][len(COMMANDS)])])
        return DriverView(frame, torch.stack(self.tokens)[None], speed)


def _on_track(course: Course, policies: Sequence[Policy], seed: int) -> Driven:
    """Every policy, and the scripted driver, from the same state of a track."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(course.tokenizer)
    earned, off = np.zeros((2, len(policies) + 1, course.steps))
    for number, policy in enumerate([*policies, None]):
        car = CarOnTrack(course, tokenizer)
        driver = policy.driver(1, seed + course.track, "cpu") if policy else None
        if number == 0:
            rows = np.stack(car.rows[-max(1, course.past - 1) :])
            past = car.frames.copy(), torch.stack(car.tokens).numpy(), rows
        for step in range(course.steps):
            if driver is None:
                earned[number, step] = car.drive(car.scripted)
            else:
                earned[number, step] = car.drive(Held(driver(car.seen)[0].tolist()))
                car.look()
                del car.frames[0], car.tokens[0]
            off[number, step] = car.simulator.off_road
            if car.left_field:
                off[number, step:] = 1.0
                break
        car.simulator.close()
    frames, tokens, rows = past
    return Driven(earned, off, np.stack(frames), tokens, rows)


def on_road(
    courses: Sequence[Course], policies: Sequence[Policy], seed: int, num_workers: int
) -> list[Driven]:
    """All courses; the same whatever the number of processes."""
    if num_workers <= 1:
        return [_on_track(course, policies, seed) for course in courses]
    with process_pool(min(num_workers, len(courses))) as pool:
        futures = [pool.submit(_on_track, course, policies, seed) for course in courses]
        return [future.result() for future in futures]
