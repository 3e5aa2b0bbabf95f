"""Settings of the whole-frame model with keyframes; imports no torch."""

from dataclasses import dataclass

from training.errors import BadInput
from training.ranges import at_least
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig


@dataclass(frozen=True, kw_only=True)
class KeyframesConfig(WholeFrameConfig):
    """Shape of a whole-frame model that reads few frames of a long context.

    It reads the newest frames and, before them, keyframes that lie apart. With 16 steps of context,
    3 keyframes and 4 steps between them it reads frames 0, 4, 8 and 12 to 15: 7 instead of 16.

    Attributes:
        context_steps: time steps from the oldest keyframe to the predicted frame.
        keyframes: older frames that are read.
        keyframe_every: time steps from a keyframe to the next frame that is read. Actions between
            two such frames are averaged.
    """

    context_steps: int = 16
    keyframes: int = 3
    keyframe_every: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, keyframes=self.keyframes)
        at_least(2, keyframe_every=self.keyframe_every)
        if self.newest < 2:
            raise BadInput(
                f"keyframes={self.keyframes} with keyframe_every={self.keyframe_every} and "
                f"context_steps={self.context_steps}: leave {self.newest} newest frames, 2 or more "
                "are needed; raise context_steps"
            )
        if self.text_tokens or self.text_width:
            raise BadInput(
                f"layout.text_tokens={self.text_tokens}: a model with keyframes reads no captions; "
                "set text_tokens=0 and model.text=null"
            )

    @property
    def newest(self) -> int:
        """Frames at the end of the context that follow each other, the predicted one included."""
        return self.context_steps - self.keyframes * self.keyframe_every

    def places(self, stop: int) -> list[int]:
        """Frames of the context that ends before frame `stop`; early contexts have fewer."""
        first = max(0, stop - self.newest)
        reach = min(self.keyframes, first // self.keyframe_every) * self.keyframe_every
        return [*range(first - reach, first, self.keyframe_every), *range(first, stop)]

    def times(self, num_steps: int) -> list[int]:
        """Where in a full context the frames of one with `num_steps` frames stand."""
        first = self.context_steps - self.newest
        older = max(0, num_steps - self.newest)
        early = range(first - older * self.keyframe_every, first, self.keyframe_every)
        return [*early, *range(first, first + num_steps - older)]
