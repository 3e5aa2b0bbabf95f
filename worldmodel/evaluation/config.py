"""Settings of the commands that judge; imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drives.config import SPLIT_CHOICES
from training.ranges import at_least, one_of

METHODS: dict[str, list[dict[str, Any]]] = {
    "raster": [{}, {"window": "roll"}, {"dtype": "bfloat16"}, {"dtype": "int8"}],
    "speculative": [
        {"draft": "previous", "num_draft": 4},
        {"draft": "jacobi", "num_draft": 16},
    ],
    "diagonal": [{"lag": 1}, {"lag": 2}],
}


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What is judged, and where the report goes.

    Attributes:
        ckpt: a shipped model, a run folder (its newest checkpoint) or a checkpoint folder.
        out: where the report goes; null: <run folder>/eval, and beside it eval_tokenizer for
            the tokenizer that was trained together with a world model.
        tokenizer: of the world model's tokens, where it is another or not known.
        video_decoder: a run or checkpoint of a video decoder, which makes the frames of the tokens
            in place of the tokenizer's own decoder; null: none.
        split: whose drives.
        allow_train: judge it on clips that it was trained on as well.
        batch_size: windows scored at once.
        attainable: `attainable.json` of the same tokens; the card `control` then tells the share of
            the bits that actions can tell which the model uses.
        lpips_weights: file of LPIPS's backbone; null: the usual sources (docs/ruler.md).
        i3d_weights: file of FVD's network; null: the usual sources.
        inception_weights: file of FID's network; null: the usual sources.
        wandb: add the cards to the run's page in wandb.
        device: null: a GPU if there is one.
    """

    ckpt: str | None
    out: str | None = None
    tokenizer: str | None = None
    video_decoder: str | None = None
    split: str = "test"
    allow_train: bool = False
    batch_size: int = 16
    attainable: str | None = None
    lpips_weights: str | None = None
    i3d_weights: str | None = None
    inception_weights: str | None = None
    wandb: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        one_of(SPLIT_CHOICES, split=self.split)
        at_least(1, batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class CompareModelsSettings(EvalSettings):
    """What is compared; the first RUN is what the others are compared with.

    Attributes:
        ckpt: set by the RUNs.
        runs: the RUNs: run folders or checkpoint folders.
        out: folder of the comparison.
    """

    ckpt: str | None = None
    runs: Sequence[str] | None = None
    out: str | None = "${paths.runs}/compare_models"


@dataclass(frozen=True, kw_only=True)
class DecodingBenchSettings:
    """Which ways to decode are measured.

    Attributes:
        ckpt: a shipped model, a run folder (its newest checkpoint) or a checkpoint folder.
        tokenizer: of the world model's tokens, where it is another or not known.
        split: whose drives.
        allow_train: take clips that it was trained on as well.
        num_frames: frames decoded after a full context, the first of them to warm up.
        repeats: how often; the fastest counts.
        methods: options of each method; a method not named here runs as it is.
        device: null: a GPU if there is one.
        write: append the table to `results`.
        results: a file of results.
    """

    ckpt: str
    tokenizer: str | None = None
    split: str = "test"
    allow_train: bool = False
    num_frames: int = 6
    repeats: int = 2
    methods: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=lambda: METHODS)
    device: str | None = None
    write: bool = False
    results: str = "docs/results.md"

    def __post_init__(self) -> None:
        one_of(SPLIT_CHOICES, split=self.split)
        at_least(2, num_frames=self.num_frames)
        at_least(1, repeats=self.repeats)
