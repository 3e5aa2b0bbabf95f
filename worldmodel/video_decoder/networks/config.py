"""Settings of the networks of video decoders; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.errors import BadInput
from training.ranges import at_least, one_of, positive, share

SCHEDULES = ("cosine", "straight")
PREDICTIONS = ("v", "eps", "x0")
IMAGE, VIDEO, FORWARD, BACKWARD, INTERPOLATION = TASKS = (
    "image",
    "video",
    "forward",
    "backward",
    "interpolation",
)


@dataclass(frozen=True, kw_only=True)
class VideoDecoderConfig:
    """A transformer over patches and time, from token grids to the frames of a window.

    Grid, vocabulary and size of frames come from the tokenizer, never from here.

    Attributes:
        dim: channels of every patch.
        num_layers: blocks of attention over a frame, attention over time, and an MLP.
        num_heads: heads of both attentions; divides dim.
        patch: pixels on a side of a patch; divides the size of frames.
        detail: channels of the convolutions that join the patches to a frame.
        window_frames: frames of a window; odd, so that it begins and ends with a given frame where
            every second one is interpolated (7 in GAIA-1).
        spacings: frames of the recording from one frame of a window to the next; one is drawn per
            example. GAIA-1's 1, 2 and 4 are its 25, 12.5 and 6.25 Hz.
        draft: also read the frames of the tokenizer's own decoder (and between two given frames
            without tokens their mean), and learn what to change.
        reach: also read the drafts of the frames before and after, moved along the motion between
            the drafts, of up to so many pixels per frame; two given frames are moved to where their
            motion meets before their mean is taken; 0: neither.
        halvings: how often drafts are halved in size before moves up to `reach` are tried. At each
            larger size the motion found is doubled, corrected and smoothed: moves of up to
            (reach + 1) * 2**halvings - 1 pixels are found, 11 for 2 and 2.
        tasks: what a window is trained on, with equal shares: image (every frame alone), video,
            forward and backward (the first or last frames are given), interpolation (every second
            frame is given, the others have no tokens).
    """

    dim: int = 256
    num_layers: int = 8
    num_heads: int = 4
    patch: int = 4
    detail: int = 32
    window_frames: int = 7
    spacings: Sequence[int] = (1, 2, 4)
    draft: bool = False
    reach: int = 0
    halvings: int = 0
    tasks: Sequence[str] = TASKS
    pixel_layers = 0  # as of `DiffusionDecoderConfig`; no setting of most kinds
    causal = False  # whether frames read those after them; no setting of most kinds

    def __post_init__(self) -> None:
        where = "model.network."
        at_least(0, where, reach=self.reach, halvings=self.halvings)
        if self.reach and not self.draft:
            raise BadInput(
                f"model.network.reach={self.reach}: moves drafts, and draft=false has none; give "
                "draft=true as well"
            )
        if self.halvings and not self.reach:
            raise BadInput(
                f"model.network.halvings={self.halvings}: of a search for motion, and reach=0 "
                "searches none; give reach=2 as well"
            )
        at_least(1, where, dim=self.dim, num_layers=self.num_layers, num_heads=self.num_heads)
        at_least(1, where, patch=self.patch, detail=self.detail, spacings=self.spacings)
        at_least(3, where, window_frames=self.window_frames)
        if self.dim % (2 * self.num_heads):
            raise BadInput(
                f"model.network.dim={self.dim}: give a multiple of twice num_heads={self.num_heads}"
            )
        if self.window_frames % 2 == 0:
            raise BadInput(
                f"model.network.window_frames={self.window_frames}: give an odd number, such as 7"
            )
        if len(set(self.spacings)) != len(self.spacings) or not self.spacings:
            raise BadInput(f"model.network.spacings={list(self.spacings)}: give different ones")
        if 1 not in self.spacings:  # frames at the rate of the drives
            raise BadInput(f"model.network.spacings={list(self.spacings)}: 1 has to be among them")
        if not self.tasks:
            raise BadInput(f"model.network.tasks=[]: give some of {', '.join(TASKS)}")
        for task in self.tasks:
            one_of(TASKS, where, tasks=task)

    @property
    def span(self) -> int:
        """Frames of a recording that the widest window covers."""
        return span_of(self.window_frames, self.spacings)


def span_of(window_frames: int, spacings: Sequence[int]) -> int:
    return (window_frames - 1) * max(spacings) + 1


@dataclass(frozen=True, kw_only=True)
class DiffusionDecoderConfig(VideoDecoderConfig):
    """GAIA-1's decoder (Hu et al. 2023, arXiv 2309.17080, section 2.3): frames from noise.

    Attributes:
        schedule: how noise joins frames: "cosine" (Nichol and Dhariwal 2021), or "straight", a line
            from frames to noise, as flow matching has (Lipman et al. 2023).
        predicts: "v" (the velocity along the schedule: v-parameterisation for "cosine", Salimans
            and Ho 2022; flow matching for "straight"), "eps" (the noise) or "x0" (the frames).
        draft_std: how far frames lie from the draft where it is flat (RMS, pixels in [-1, 1]); at
            its edges its contrast is added. 0.025 is that of CarRacing's tokenizer.
        shared_noise: share of the noise's variance that all frames of a clip have in common (mixed
            noise, Ge et al. 2023, arXiv 2305.10474); what the noise invents then stays from frame
            to frame. 0.75 is the correlation of two successive frames' distances from their drafts
            in units of what those leave open (CarRacing); 0: each frame has its own.
        pixel_layers: residual convolutions of `detail` channels at full size, told the level of
            noise, each with twice the reach of the one before it: patches are too coarse to tell
            noise from frames.
    """

    schedule: str = "cosine"
    predicts: str = "v"
    draft_std: float = 0.025
    shared_noise: float = 0.75
    pixel_layers: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("model.network.", draft_std=self.draft_std)
        at_least(0, "model.network.", pixel_layers=self.pixel_layers)
        share("model.network.", shared_noise=self.shared_noise)
        one_of(SCHEDULES, "model.network.", schedule=self.schedule)
        one_of(PREDICTIONS, "model.network.", predicts=self.predicts)


@dataclass(frozen=True, kw_only=True)
class OnePassDecoderConfig(VideoDecoderConfig):
    """The same transformer without noise: frames in one pass, the same for the same tokens.

    Attributes:
        causal: a frame reads its own tokens and those before it, none after it.
    """

    causal: bool = True
    tasks: Sequence[str] = (VIDEO,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.causal and (late := {BACKWARD, INTERPOLATION} & set(self.tasks)):
            raise BadInput(
                f"model.network.tasks={list(self.tasks)}: {' and '.join(sorted(late))} give later "
                "frames, which a causal decoder does not read; give causal=false"
            )
