"""Settings of video decoders; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from drives.clips.config import FramesConfig
from drives.config import SPLIT_CHOICES
from tokenizer.losses.config import AdversaryConfig
from training.config import AdamWConfig
from training.errors import BadInput
from training.ranges import at_least, below_one, one_of, share, within
from worldmodel.video_decoder.networks.config import DiffusionDecoderConfig, VideoDecoderConfig


@dataclass(frozen=True, kw_only=True)
class VideoDecoderModuleConfig(AdversaryConfig):
    """A video decoder and how it is trained.

    The discriminator's settings are those of tokenizers; it is one of a one-pass decoder.

    Attributes:
        network: its kind and shape; model=NAME chooses it.
        optimizer: that of the run.
        ema_decay: of the average of the weights, per step, which validation and decoding use.
        token_dropout: share of the tokens that an example does not see.
        l1_weight, l2_weight: of absolute and squared errors, of what the network predicts.
        perceptual_weight: of LPIPS between frames; of a one-pass decoder.
        perceptual_net: backbone of LPIPS: "alex" or "vgg".
        change_weight: of the absolute error of the change from frame to frame; of a one-pass
            decoder.
        discriminator_frames: neighbouring frames that the discriminator sees at once; 1: each
            alone, so that it knows no flicker.
        lpips_weights: file of the backbone of LPIPS; null: the usual sources.
        val_steps: passes of a diffusion decoder in a validation.
    """

    network: VideoDecoderConfig
    optimizer: AdamWConfig
    ema_decay: float = 0.999
    token_dropout: float = 0.15
    l1_weight: float = 0.1
    l2_weight: float = 1.0
    perceptual_weight: float = 0.0
    perceptual_net: str = "alex"
    change_weight: float = 0.0
    gan_weight: float = 0.0
    gan_start: int = 1000
    discriminator_frames: int = 3
    lpips_weights: str | None = None
    val_steps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        below_one("model.", ema_decay=self.ema_decay, token_dropout=self.token_dropout)
        weights = {
            "l1_weight": self.l1_weight,
            "l2_weight": self.l2_weight,
            "perceptual_weight": self.perceptual_weight,
            "change_weight": self.change_weight,
        }
        at_least(0.0, "model.", **weights)
        at_least(1, "model.", val_steps=self.val_steps)
        one_of(("alex", "vgg"), "model.", perceptual_net=self.perceptual_net)
        if not any(weights.values()):
            raise BadInput("model.l2_weight=0.0: all weights are 0; give one that is not")
        window = self.network.window_frames
        within(1, window, "model.", discriminator_frames=self.discriminator_frames)
        for name in ("perceptual_weight", "change_weight", "gan_weight"):
            weight = getattr(self, name)
            if weight and isinstance(self.network, DiffusionDecoderConfig):
                raise BadInput(
                    f"model.{name}={weight}: compares frames, and a diffusion decoder is "
                    "trained on its prediction; leave it out, or take model=one_pass_decoder"
                )


@dataclass(frozen=True, kw_only=True)
class DecoderClipsConfig(FramesConfig):
    """Settings of clips for a video decoder.

    Attributes:
        tokenizer: a shipped one, a run folder, or a checkpoint folder; of images.
        window_frames: frames of a window; the network's.
        spacings: between the frames of a window; the network's.
    """

    tokenizer: str = "carracing"
    window_frames: int
    spacings: Sequence[int]
    batch_size: int = 8
    num_val_clips: int = 32


@dataclass(frozen=True, kw_only=True)
class VideoDecodingConfig:
    """How a video decoder makes frames.

    Attributes:
        num_steps: passes of a diffusion decoder (DDIM; 50 in GAIA-1); a few for "straight".
        overlap: frames that a window has in common with the one that is decoded before it.
        backwards: decode a drive from its end to its begin, as GAIA-1 does; a causal decoder goes
            forwards.
        image_share: share of the passes in which every frame is also decoded alone.
        image_weight: weight of that prediction in those passes.
        seed: of the noise; a clip's number is added to it.
    """

    num_steps: int = 50
    overlap: int = 2
    backwards: bool = True
    image_share: float = 0.25
    image_weight: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, "video.", num_steps=self.num_steps, overlap=self.overlap)
        at_least(0, "video.", seed=self.seed)
        share("video.", image_share=self.image_share, image_weight=self.image_weight)


@dataclass(frozen=True, kw_only=True)
class JudgeVideoSettings:
    """Which video decoder is judged, and on what.

    Attributes:
        ckpt: a run folder (its newest checkpoint) or a checkpoint folder.
        out: a new folder for the result; null: <run folder>/video.
        tokenizer: of the tokens; null: that of the training.
        world_model: a shipped one, a run or a checkpoint; then tokens that it dreams after prompts
            of the same clips are decoded as well, under the real actions; null: none.
        prompt_steps: real frames before its dreams; null: half of its context.
        split: whose drives.
        num_clips: clips, spread evenly over the drives.
        clip_frames: frames of a clip; odd, so that every second one can be interpolated.
        features: of Frechet distances to the recording: fvd (I3D) | statistics (no weights).
        min_clips: fewest clips of 16 frames for them; with fewer, they are left out.
        allow_train: judge it on clips that it was trained on as well.
        lpips_weights: file of LPIPS's backbone; null: the usual sources (docs/ruler.md).
        i3d_weights: file of FVD's network; null: the usual sources.
        device: null: a GPU if there is one.
    """

    ckpt: str
    out: str | None = None
    tokenizer: str | None = None
    world_model: str | None = None
    prompt_steps: int | None = None
    split: str = "test"
    num_clips: int = 12
    clip_frames: int = 33
    features: Sequence[str] = ("fvd", "statistics")
    min_clips: int = 64
    allow_train: bool = False
    lpips_weights: str | None = None
    i3d_weights: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        one_of(SPLIT_CHOICES, split=self.split)
        at_least(1, num_clips=self.num_clips)
        at_least(3, clip_frames=self.clip_frames)
        at_least(2, min_clips=self.min_clips)
        if self.prompt_steps is not None:
            at_least(1, prompt_steps=self.prompt_steps)
        for feature in self.features:
            one_of(("fvd", "statistics"), features=feature)
        if self.clip_frames % 2 == 0:
            raise BadInput(f"clip_frames={self.clip_frames}: give an odd number, such as 33")


@dataclass(frozen=True)
class DecodedMediaConfig:
    """Pictures of fixed validation windows: recorded, by the tokenizer, by the video decoder.

    Attributes:
        every_steps: optimizer steps between pictures.
        num_clips: windows below each other.
        num_steps: passes of a diffusion decoder.
    """

    every_steps: int = 1000
    num_clips: int = 2
    num_steps: int = 10

    def __post_init__(self) -> None:
        at_least(1, "callbacks.media.", every_steps=self.every_steps, num_clips=self.num_clips)
        at_least(1, "callbacks.media.", num_steps=self.num_steps)
