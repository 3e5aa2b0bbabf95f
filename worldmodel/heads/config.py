"""Settings of `python -m worldmodel.heads`; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from drives.actions.units import DONE, OFF_ROAD, REWARD
from training.errors import BadInput
from training.ranges import at_least, one_of

HEADS = (REWARD, OFF_ROAD, DONE)


@dataclass(frozen=True, kw_only=True)
class HeadsSettings:
    """Which heads are trained, on whose tokens.

    Attributes:
        ckpt: a shipped model, a run folder (its newest checkpoint) or a checkpoint folder; it says
            which tokens there are, and is not changed.
        out: folder that gets the heads.
        tokenizer: of the model's tokens, where it is another or not known.
        columns: of the drives; every head reads one. A model reads none of these columns.
        with_actions: columns whose heads read the row that led to the frame, and what the heads of
            the other columns read, in place of tokens: these hardly show how fast a road goes by.
        smooth_s: a reward is learned as its mean over about this time, which is hardly noise; its
            sums stay. 0: as it is.
        num_frames: newest time steps that a head reads.
        convolutions: channels of convolutions over the frames, of heads on tokens: such a head
            sees motion, and needs no actions; []: none.
        steps: optimizer steps of every head.
        seed: of weights and batches.
        device: null: a GPU if there is one.

    Raises:
        BadInput: no column, one that is named twice, or a number out of range.
    """

    ckpt: str
    out: str
    tokenizer: str | None = None
    columns: Sequence[str] = HEADS
    with_actions: Sequence[str] = (REWARD,)
    smooth_s: float = 1.0
    convolutions: Sequence[int] = ()
    num_frames: int = 4
    steps: int = 2000
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        at_least(1, num_frames=self.num_frames, steps=self.steps)
        at_least(0, seed=self.seed)
        at_least(0.0, smooth_s=self.smooth_s)
        at_least(1, convolutions=self.convolutions)
        for name in self.with_actions:
            one_of(self.columns, with_actions=name)
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise BadInput(f"columns={list(self.columns)}: name at least one, each once")
