"""Settings of the proving ground and of the policies that are trained for it; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.errors import BadInput
from training.ranges import at_least, positive, share, within

CLONED, DREAMT = "cloned", "trained in the dream"


@dataclass(frozen=True, kw_only=True)
class CloningConfig:
    """Behaviour cloning on drives.

    Attributes:
        steps: optimizer steps; 0: no clone takes part.
        num_frames: newest frames that the clone sees.
        best_share: of the train rows, by what was earned in the second after them; all rows where
            the drives have no rewards.
        hidden: width of both hidden layers.
        dropout: of what it reads of the tokens.
        batch_size: rows of a step.
        learning_rate: the highest; one cycle.
        seed: of weights and batches.
    """

    steps: int = 800
    num_frames: int = 2
    best_share: float = 0.5
    hidden: int = 256
    dropout: float = 0.3
    batch_size: int = 256
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, "cloning.", steps=self.steps, seed=self.seed)
        at_least(1, "cloning.", num_frames=self.num_frames, hidden=self.hidden)
        at_least(2, "cloning.", batch_size=self.batch_size)
        positive("cloning.", best_share=self.best_share, learning_rate=self.learning_rate)
        share("cloning.", best_share=self.best_share, dropout=self.dropout)


@dataclass(frozen=True, kw_only=True)
class DreamTrainingConfig:
    """The cross-entropy method over a policy's weights, judged by its return in dreams alone.

    Attributes:
        rounds: 0: no such policy takes part.
        num_candidates: policies of a round.
        num_elites: those that the next round is drawn around.
        num_starts: clips of train drives that each begins from.
        seconds: length of a dream.
        spread: standard deviation of the first weights.
        seed: of weights and dreams.
    """

    rounds: int = 8
    num_candidates: int = 16
    num_elites: int = 4
    num_starts: int = 6
    seconds: float = 3.0
    spread: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, "dream_training.", rounds=self.rounds, seed=self.seed)
        at_least(1, "dream_training.", num_starts=self.num_starts)
        at_least(2, "dream_training.", num_candidates=self.num_candidates)
        within(1, self.num_candidates, "dream_training.", num_elites=self.num_elites)
        positive("dream_training.", seconds=self.seconds, spread=self.spread)


@dataclass(frozen=True, kw_only=True)
class ProvingGroundSettings:
    """Which model ranks policies, and on how many tracks.

    Attributes:
        ckpt: a shipped model, a run folder (its newest checkpoint) or a checkpoint folder.
        heads: folder of `python -m worldmodel.heads`; one reads the reward.
        out: folder that gets the results.
        tokenizer: of the model's tokens, where it is another or not known.
        num_tracks: of CarRacing, none of which is in the embedded drives; each gives one start.
        first_track: number of the first one.
        horizons_s: returns are compared over these times.
        samples: dreams from every start.
        num_graded: road followers that take part, of ten.
        most_dreams: dreams in one batch.
        num_workers: processes that drive on the road; null: one per core.
        seed: of dreams and of the policies' own chance.
        device: null: a GPU if there is one.
    """

    ckpt: str
    heads: str
    out: str
    tokenizer: str | None = None
    num_tracks: int = 24
    first_track: int = 0
    horizons_s: Sequence[float] = (1.0, 2.0, 5.0, 10.0)
    samples: int = 1
    num_graded: int = 10
    most_dreams: int = 1024
    num_workers: int | None = None
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        at_least(2, num_tracks=self.num_tracks)
        at_least(0, first_track=self.first_track, seed=self.seed)
        at_least(1, samples=self.samples, most_dreams=self.most_dreams)
        within(3, 10, num_graded=self.num_graded)
        positive(horizons_s=self.horizons_s)
        if not self.horizons_s:
            raise BadInput("horizons_s=[]: give at least one time in seconds")
        if self.num_workers is not None:
            at_least(1, num_workers=self.num_workers)
