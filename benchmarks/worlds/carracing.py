"""CarRacing on tracks that no drive has."""

from dataclasses import dataclass

from benchmarks.worlds.episode import Row
from tokenizer.load import Tokenizer
from worldmodel.proving_ground.policies import COMMANDS
from worldmodel.proving_ground.simulated import CarOnTrack, Course, Held


class CarEpisode(CarOnTrack):
    """A car that a careful scripted driver has started."""

    def play(self, row: Row | None) -> float:
        driver = self.scripted if row is None else Held(row[: len(COMMANDS)].tolist())
        reward = self.drive(driver)
        self.look()
        return reward


@dataclass(frozen=True)
class Tracks:
    tokenizer: Tokenizer
    fps: float
    name: str = "CarRacing"

    def start(self, number: int, past: int) -> CarEpisode:
        return CarEpisode(Course(number, 0, self.fps, past, ""), self.tokenizer)
