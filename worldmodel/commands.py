"""Settings of the commands of a world model; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from drives.config import SPLIT_CHOICES
from training.ranges import at_least, one_of, positive, within


@dataclass(frozen=True, kw_only=True)
class PromptsConfig:
    """Which clips are continued, and for how long.

    Attributes:
        split: whose drives give the prompts.
        num_clips: prompts, spread evenly over the drives.
        prompt_steps: real time steps before a rollout; null: half of the context.
        horizon_s: length of a future in seconds.
        num_futures: futures of every prompt.

    Raises:
        BadInput: a number that is not positive.
    """

    split: str = "test"
    num_clips: int = 4
    prompt_steps: int | None = None
    horizon_s: float = 2.0
    num_futures: int = 1

    def __post_init__(self) -> None:
        one_of(SPLIT_CHOICES, split=self.split)
        at_least(1, num_clips=self.num_clips, num_futures=self.num_futures)
        if self.prompt_steps is not None:
            at_least(1, prompt_steps=self.prompt_steps)
        positive(horizon_s=self.horizon_s)


@dataclass(frozen=True, kw_only=True)
class RolloutSettings(PromptsConfig):
    """Which model continues which clips.

    Attributes:
        ckpt: a shipped model, a run folder (its newest checkpoint) or a checkpoint folder.
        out: a new token store, with pictures beside it where a tokenizer is known.
        tokenizer: of the model's tokens, where it is another or not known.
        drives: write every future as a drive too, in OUT/drives; needs the tokenizer.
        video_decoder: a run or checkpoint of a video decoder, which makes the frames in place of
            the tokenizer's own decoder; null: none.
        allow_train: take clips that the model was trained on as well.
        device: null: a GPU if there is one.
    """

    ckpt: str
    out: str
    tokenizer: str | None = None
    drives: bool = False
    video_decoder: str | None = None
    allow_train: bool = False
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class DriveSettings:
    """Which model's dream is driven, and from where.

    Attributes:
        ckpt: a shipped model, a run folder (its newest checkpoint) or a checkpoint folder.
        tokenizer: of the model's tokens, where it is another or not known.
        video_decoder: a run or checkpoint of a video decoder, which makes the frames in place of
            the tokenizer's own decoder; null: none.
        split: whose drives give the clips that a dream begins with.
        prompt_steps: real time steps before a dream; null: the context of the model.
        out: folder of what is saved.
        port: of the page, on 127.0.0.1; 0: any that is free.
        rate: time steps per second that the page asks for; null: those of the data.
        device: null: a GPU if there is one.
        export: a new HTML file that holds the dream and dreams by itself; null: a page that a
            server drives.
    """

    ckpt: str
    tokenizer: str | None = None
    video_decoder: str | None = None
    split: str = "test"
    prompt_steps: int | None = None
    out: str = "${paths.runs}/dreams"
    port: int = 8765
    rate: float | None = None
    device: str | None = None
    export: str | None = None

    def __post_init__(self) -> None:
        one_of(SPLIT_CHOICES, split=self.split)
        within(0, 65535, port=self.port)
        if self.prompt_steps is not None:
            at_least(1, prompt_steps=self.prompt_steps)
        if self.rate is not None:
            positive(rate=self.rate)


@dataclass(frozen=True, kw_only=True)
class ConvertModelSettings:
    """Which published world model becomes a checkpoint.

    Attributes:
        model: commavq_gpt | cosmos_ar | vam_mupgpt2 | genie.
        ckpt: the published weights, and with commas what lies beside them.
        out: the checkpoint folder.
    """

    model: str
    ckpt: str | Sequence[str]
    out: str


@dataclass(frozen=True, kw_only=True)
class PublishedModelOptions:
    """How a published world model is opened; null: as the files say.

    Attributes:
        num_heads: of commavq_gpt.
        grid: of commavq_gpt and vam_mupgpt2: [rows, columns] of a frame.
        latent_shape: of cosmos_ar: [time steps, rows, columns].
        dim_heads: of vam_mupgpt2: channels of a head.
        mup_base_width: of vam_mupgpt2.
        fps: of cosmos_ar, vam_mupgpt2 and genie: of the videos.
    """

    num_heads: int | None = None
    grid: Sequence[int] | None = None
    latent_shape: Sequence[int] | None = None
    dim_heads: int | None = None
    mup_base_width: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_heads", "grid", "latent_shape", "dim_heads", "mup_base_width"):
            if (value := getattr(self, name)) is not None:
                at_least(1, "options.", **{name: value})
        if self.fps is not None:
            positive("options.", fps=self.fps)
