"""Clips of recorded frames for a video decoder, with the tokenizer whose tokens it decodes."""

from typing import Any

from drives.clips.data_module import Clip, ClipDataModule
from drives.folder import common_rate
from drives.sources import DriveSource
from tokenizer.load import Tokenizer, load_tokenizer
from training.checkpoints.provenance import provenance_of
from training.errors import BadInput
from worldmodel.video_decoder.config import DecoderClipsConfig
from worldmodel.video_decoder.networks.config import span_of
from worldmodel.video_decoder.tokens import check_usable


class DecoderClipDataModule(ClipDataModule):
    """Clips as long as the widest window, at the size of the tokenizer's frames.

    Tokens are not stored: the frozen tokenizer encodes each batch, so frames and tokens always
    belong together.

    Args:
        settings: as those of `DecoderClipsConfig`.
    """

    def __init__(self, source: DriveSource, **settings: Any) -> None:
        config = DecoderClipsConfig(source=source, **settings)
        self.opened: Tokenizer = load_tokenizer(config.tokenizer)
        check_usable(self.opened)
        taken = ("tokenizer", "window_frames", "spacings")
        super().__init__(
            source,
            self.opened.network.config.image_size,
            clip_frames=span_of(config.window_frames, config.spacings),
            **{name: value for name, value in settings.items() if name not in taken},
        )
        self.batch_size, self.num_val_clips = config.batch_size, config.num_val_clips

    def prepare_data(self) -> None:
        """As of all clips; a tokenizer that cuts a window of its own takes drives that are cut.

        Raises:
            BadInput: drives of another size than its window's; clips are scaled whole.
        """
        if not self.drives and self.opened.preprocessing.window:
            size = tuple(self.image_size)
            for drive in self.source.open():
                if drive.frame_size != size:
                    raise BadInput(
                        f"data.tokenizer: cuts a window of its own from the camera's frames, and "
                        f"{drive.path} has frames of {drive.frame_size}, which would be scaled "
                        f"whole; give drives that are cut to {size} already"
                    )
        super().prepare_data()

    def model_facts(self) -> dict[str, Any]:
        """Facts for the model: the meaning of the tokens, and the tokenizer."""
        self.prepare_data()
        return self._facts(common_rate(self.drives))

    def planned_facts(self) -> dict[str, Any]:
        return self._facts(self.source.planned()[0])

    def planned_batch(self, facts: dict[str, Any], size: int) -> Clip:
        return super().planned_batch({}, size)

    def _facts(self, fps: float) -> dict[str, Any]:
        return {"spec": self.opened.spec(fps), "tokenizer": self.opened}

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {"tokenizer": provenance_of(self.opened.manifest)}
