"""Settings of the cards: the question of each, and its clips; imports no torch.

Every checkpoint gets the same card, so its settings have a version. Changed settings need another
version: a name of the user's own.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import ClassVar

from training.errors import BadInput
from training.ranges import at_least, one_of, positive
from worldmodel.evaluation.videos.config import DISTANCES, LPIPS_NETS, MIN_I3D_FRAMES

# Counts that several cards have.
COUNTS = {"num_windows", "num_clips", "num_futures", "num_segments", "max_frames", "reader_steps"}
COUNTS |= {"num_samples", "reward_steps"}


@dataclass(frozen=True, kw_only=True)
class Card:
    """Settings of a card.

    Attributes:
        version: a number for published settings; any other text for settings of your own.
    """

    name: ClassVar[str]
    kind: ClassVar[str] = "worldmodel"
    strides: ClassVar[bool] = False  # whether it takes frames at the model's rate from any store
    decodes: ClassVar[bool] = False  # whether it shows tokens as a video decoder's frames

    version: str = "1"

    @property
    def hash(self) -> str:
        """Hash of name and settings: equal hashes mean equal questions."""
        own = {"name": self.name, **asdict(self)}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]

    def __post_init__(self) -> None:
        """Judge the settings that several cards have; a card judges its own first."""
        where = f"cards.{self.name}."
        own = {name: value for name, value in vars(self).items() if value is not None}
        for name in own.keys() & COUNTS:
            at_least(1, where, **{name: own[name]})
        if "prompt_steps" in own:
            at_least(2, where, prompt_steps=own["prompt_steps"])
        if "horizon_s" in own:
            positive(where, horizon_s=own["horizon_s"])
        if "lpips_net" in own:
            one_of(LPIPS_NETS, where, lpips_net=own["lpips_net"])

    def check_version(self) -> None:
        """BadInput where a published version's settings were changed."""
        published = VERSIONS.get(self.name, {})
        if self.version in published and published[self.version] != self.hash:
            where = f"cards.{self.name}"
            default = type(self)(version=self.version)
            different = [k for k, v in asdict(self).items() if v != getattr(default, k)]
            raise BadInput(
                f"{where}.{different[0] if different else 'version'}: is not as version "
                f"{self.version} of this card says; give {where}.version=NAME of your own with it"
            )


@dataclass(frozen=True, kw_only=True)
class TeacherForcedCard(Card):
    """How well is the next token predicted from the real past?

    Attributes:
        num_windows: windows, evenly spread over the drives.
    """

    name: ClassVar[str] = "teacher_forced"
    num_windows: int = 256


@dataclass(frozen=True, kw_only=True)
class FloorsCard(Card):
    """What do predictors score that know nothing of driving, and does the train split leak?

    Attributes:
        num_windows: windows, evenly spread over the drives.
    """

    name: ClassVar[str] = "floors"
    num_windows: int = 256


@dataclass(frozen=True, kw_only=True)
class RolloutCard(Card):
    """How do imagined frames compare with those that the camera saw?

    Attributes:
        num_clips: clips rolled out; prompts are spread evenly over the drives.
        prompt_steps: real time steps before a rollout; null is half of the context.
        horizon_s: seconds imagined.
        num_futures: futures of every prompt.
        lpips_net: alex | vgg.
    """

    name: ClassVar[str] = "rollout"
    decodes: ClassVar[bool] = True
    num_clips: int = 8
    prompt_steps: int | None = None
    horizon_s: float = 2.0
    num_futures: int = 2
    lpips_net: str = "alex"


@dataclass(frozen=True, kw_only=True)
class DistanceCard(Card):
    """Are imagined videos, as a whole, like real ones?

    Attributes:
        features: statistics (no weights needed) | fvd (I3D) | fid (Inception).
        num_clips: clips rolled out, evenly spread over the drives.
        min_clips: with fewer, the distance tells the number of clips; refused.
        clip_frames: imagined frames of each; published FVDs are of 16.
        prompt_steps: real time steps before; null is half of the context.
        side: pixels to which I3D's frames are scaled; published FVDs are of 224.
        images_per_clip: frames of each clip that Inception sees.
    """

    name: ClassVar[str] = "distance"
    decodes: ClassVar[bool] = True
    features: tuple[str, ...] = ("statistics",)
    num_clips: int = 64
    min_clips: int = 64
    clip_frames: int = 16
    prompt_steps: int | None = None
    side: int = 224
    images_per_clip: int = 4

    def __post_init__(self) -> None:
        where = f"cards.{self.name}."
        at_least(3, where, clip_frames=self.clip_frames)
        at_least(2, where, num_clips=self.num_clips, min_clips=self.min_clips)
        at_least(32, where, side=self.side)
        at_least(1, where, images_per_clip=self.images_per_clip)
        for feature in self.features:
            one_of(DISTANCES, where, features=feature)
        if "fvd" in self.features and self.clip_frames < MIN_I3D_FRAMES:
            raise BadInput(
                f"{where}clip_frames={self.clip_frames}: I3D needs {MIN_I3D_FRAMES}; give more, or "
                "leave fvd out of features"
            )
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class ControlCard(Card):
    """Does the model listen to the actions?

    Version 2 measures the motion of the scene in spite of patterns that stand still.

    Attributes:
        num_windows: windows whose tokens are scored under wrong actions.
        num_clips: clips imagined under every command.
        prompt_steps: real time steps before a rollout; null is half of the context.
        horizon_s: seconds imagined.
        reader_steps: training steps of the inverse-dynamics model that reads actions from pixels.
    """

    name: ClassVar[str] = "control"
    decodes: ClassVar[bool] = True
    version: str = "2"
    num_windows: int = 256
    num_clips: int = 8
    prompt_steps: int | None = None
    horizon_s: float = 2.0
    reader_steps: int = 1000


@dataclass(frozen=True, kw_only=True)
class DriftCard(Card):
    """What becomes of the model in its own dreams?

    Attributes:
        num_clips: clips rolled out, all in one batch.
        prompt_steps: real time steps before a rollout; null is half of the context.
        horizon_s: seconds imagined.
        lpips_net: alex | vgg.
    """

    name: ClassVar[str] = "drift"
    decodes: ClassVar[bool] = True
    num_clips: int = 16
    prompt_steps: int | None = None
    horizon_s: float = 8.0
    lpips_net: str = "alex"


@dataclass(frozen=True, kw_only=True)
class OccupancyCard(Card):
    """What does an occupancy model know of the discounted future, and of values?

    Attributes:
        num_windows: states, evenly spread over the drives.
        num_samples: frames of the discounted future of each, for its value.
        reward: the column that is the reward; null is `reward`, where the data has it.
        reward_steps: training steps of the network that reads rewards from tokens.
        smooth_s: rewards are learned as their mean over about this time, which is hardly noise;
            returns are those of the real ones. 0: as they are.
    """

    name: ClassVar[str] = "occupancy"
    version: str = "2"
    num_windows: int = 64
    num_samples: int = 100
    reward: str | None = None
    reward_steps: int = 200
    smooth_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ReconstructionCard(Card):
    """How close are a tokenizer's reconstructions?

    Attributes:
        max_frames: frames, evenly spread over the drives.
        lpips_net: alex | vgg.
    """

    name: ClassVar[str] = "reconstruction"
    kind: ClassVar[str] = "tokenizer"
    max_frames: int = 1000
    lpips_net: str = "alex"


@dataclass(frozen=True, kw_only=True)
class OnexCard(Card):
    """1X's challenge: how well is the next frame predicted from the real ones before it?

    Attributes:
        frames: of a window (version 1.1).
        every: frames of the recording from one frame of a window to the next: 2 of 30 Hz.
        num_windows: windows or clips, evenly spread; null is all of them, as for 1X's table.
        num_passes: passes of MaskGIT in which a frame is sampled.
        order: random | confidence: which of its tokens settle first.
        top: tokens of each distribution in the top-500 cross entropy (version 2.0).
        sample: whether frames are sampled, for accuracy, LPIPS and seconds; else the loss alone.
        lpips_net: alex | vgg.
    """

    name: ClassVar[str] = "onex"
    strides: ClassVar[bool] = True
    frames: int = 16
    every: int = 15
    num_windows: int | None = None
    num_passes: int = 2
    order: str = "random"
    top: int = 500
    sample: bool = True
    lpips_net: str = "alex"

    def __post_init__(self) -> None:
        where = f"cards.{self.name}."
        at_least(2, where, frames=self.frames)
        at_least(1, where, every=self.every, num_passes=self.num_passes, top=self.top)
        one_of(("random", "confidence"), where, order=self.order)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class CommaVQCard(Card):
    """commaVQ's evaluation: how many bits does a token cost, and what rate is that?

    Attributes:
        frames: of a window; 59 windows of 20 are in a minute.
        num_segments: segments, evenly spread; null is all of them.
    """

    name: ClassVar[str] = "commavq"
    frames: int = 20
    num_segments: int | None = None

    def __post_init__(self) -> None:
        at_least(1, f"cards.{self.name}.", frames=self.frames)
        super().__post_init__()


# All of the above, in their order.
CARDS: dict[str, type[Card]] = {card.name: card for card in Card.__subclasses__()}
# The default cards.
DEFAULT = {
    "worldmodel": ("teacher_forced", "rollout", "control"),
    "occupancy": ("occupancy",),
    "tokenizer": ("reconstruction",),
}
REPLACED = ""  # hash of a version that is no longer measured
# Hash of the settings of every published version.
VERSIONS: dict[str, dict[str, str]] = {
    "teacher_forced": {"1": "4e6a74f33aa64d69"},
    "floors": {"1": "6119891ecd66197a"},
    "rollout": {"1": "5e694438cd33fb95"},
    "distance": {"1": "fd600cf8c1e18ed5"},
    "control": {"1": REPLACED, "2": "aeb36348776b0d24"},
    "drift": {"1": "3283c53802d2b993"},
    "occupancy": {"1": REPLACED, "2": "8cae9d7e6770888c"},
    "onex": {"1": "21ea3d71a84a4277"},
    "commavq": {"1": "816d1ffb32140617"},
    "reconstruction": {"1": "68af64456c85ac16"},
}
