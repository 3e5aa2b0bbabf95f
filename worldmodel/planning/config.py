"""Settings of planning; imports no torch."""

from dataclasses import dataclass

from training.ranges import at_least, below_one, within


@dataclass(frozen=True)
class PlanningConfig:
    """How actions are searched for.

    Attributes:
        num_candidates: action sequences that are judged in a round.
        rounds: 1: the best of the proposals; more: the cross-entropy method, which draws the next
            candidates around the best ones.
        num_elites: the best ones of a round.
        horizon: actions of a sequence; an occupancy model reads the first one alone.
        num_samples: futures that are dreamt for a sequence.
        gamma: discount of rewards in rollouts, in [0, 1); an occupancy model has its own.
        seed: of proposals and dreams.
    """

    num_candidates: int = 16
    rounds: int = 1
    num_elites: int = 4
    horizon: int = 5
    num_samples: int = 1
    gamma: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, "planning.", rounds=self.rounds, num_samples=self.num_samples)
        at_least(1, "planning.", num_candidates=self.num_candidates, horizon=self.horizon)
        within(1, self.num_candidates, "planning.", num_elites=self.num_elites)
        below_one("planning.", gamma=self.gamma)
