"""Settings of the terms that make a world model listen to its actions; imports no torch."""

from dataclasses import dataclass

from training.errors import BadInput
from training.ranges import at_least, share


@dataclass(frozen=True)
class ListeningConfig:
    """Terms of the training loss for actions; they can be combined, validation has none of them.

    Attributes:
        inverse_dynamics: weight of the squared error, in deviations, of the action that a small
            network reads off the predicted tokens and the frame before.
        contrast: weight of the contrastive term: true actions must beat another clip's.
        contrast_margin: by how many nats per token they must.
        contrast_share: share of the batch that is read a second time with another clip's
            actions; so much more compute.
        contrast_distance: clips count whose actions differ by more than this many deviations
            (root mean square over steps and columns).
        cell_weight: how much more a token counts that differs from its cell in the frame before;
            weights have mean 1.
    """

    inverse_dynamics: float = 0.0
    contrast: float = 0.0
    contrast_margin: float = 0.1
    contrast_share: float = 0.25
    contrast_distance: float = 0.5
    cell_weight: float = 0.0

    def __post_init__(self) -> None:
        where = "model.listening."
        at_least(0.0, where, inverse_dynamics=self.inverse_dynamics, contrast=self.contrast)
        at_least(0.0, where, contrast_margin=self.contrast_margin)
        at_least(0.0, where, contrast_distance=self.contrast_distance)
        at_least(0.0, where, cell_weight=self.cell_weight)
        share(where, contrast_share=self.contrast_share)
        if self.contrast and not self.contrast_share * self.contrast_margin:
            raise BadInput(
                f"{where}contrast={self.contrast} with contrast_share={self.contrast_share}, "
                f"contrast_margin={self.contrast_margin} does nothing; give both above 0"
            )

    @property
    def on(self) -> bool:
        """Whether any term has a weight."""
        return bool(self.inverse_dynamics or self.contrast or self.cell_weight)
