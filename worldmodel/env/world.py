"""What a dream needs, opened by the name of a checkpoint: model, tokenizer, controls, clips."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drives.splits.base import is_in
from drives.tokens.drive import TokenDrive
from drives.tokens.store import TokenStore
from tokenizer.load import Tokenizer
from tokenizer.networks.base import MeaningOnly
from training.errors import BadInput
from training.ranges import at_least
from worldmodel.decoding import Sampling
from worldmodel.env.controls import Controls, controls_of
from worldmodel.env.dream import Dream
from worldmodel.env.starts import Starts
from worldmodel.evaluation.evidence import evidence_of
from worldmodel.load import WorldModel, load_world_model
from worldmodel.video_decoder.decoder import TokenVideoDecoder


@dataclass(frozen=True)
class DreamWorld:
    """An opened world model with its surroundings.

    Attributes:
        tokenizer: None where it is not at hand, or its tokens have no pixels: then there are
            tokens alone.
        controls: None if the model reads no actions.
        fps: time steps per second.
        video: makes the frames in place of the tokenizer's own decoder.
    """

    model: WorldModel
    tokenizer: Tokenizer | None
    controls: Controls | None
    starts: Starts
    fps: float
    video: TokenVideoDecoder | None = None

    def dream(
        self, sampling: Sampling | None = None, device: str = "cpu", **decoding: Any
    ) -> Dream:
        """A session of its dreams; errors as of `Dream`."""
        return Dream(self.model, self.tokenizer, sampling, device, self.video, **decoding)


def open_world(
    ckpt: str,
    data: Mapping[str, Any],
    tokenizer: str | None = None,
    split: str = "test",
    prompt_steps: int | None = None,
    actions: str = "commands",
    video_decoder: str | None = None,
    video: Mapping[str, Any] | None = None,
) -> DreamWorld:
    """Open a checkpoint to be driven.

    Args:
        data: `data.source` of a command line; its drives give the clips to begin with.
        tokenizer: of the tokens; None: the one of the training, if any.
        prompt_steps: real time steps before a dream; None: the context of the model.
        actions: what a driver gives, as of `controls_of`.
        video_decoder, video: which makes the frames, and how; None: the tokenizer's own decoder.

    Raises:
        BadInput: as `load_world_model`, `evidence_of`, `controls_of` and `Starts`, or a prompt
            that is empty or longer than the context.
    """
    if prompt_steps is not None:
        at_least(1, prompt_steps=prompt_steps)
    model = load_world_model(ckpt)
    context = model.network.config.context_steps
    prompt = prompt_steps or context
    if prompt > context:
        raise BadInput(f"prompt_steps={prompt}: the context of {model.path} is {context} steps")
    evidence = evidence_of(model, data, tokenizer)
    evidence = evidence.decoded_by(video_decoder, video or {}, "cpu")
    store, controls = evidence.store, None
    if model.network.conditioned:
        controls = controls_of(_trained(store), store.action_names, actions)
    starts = Starts(store.drives(split), prompt)
    rate = store.spec.fps / store.spec.frames_per_step
    opened = evidence.tokenizer if shows_frames(model, evidence.tokenizer) else None
    return DreamWorld(model, opened, controls, starts, rate, evidence.video)


def shows_frames(model: WorldModel, tokenizer: Tokenizer | None) -> bool:
    """Whether a grid of the model is one of the tokenizer, and that has a way back to pixels."""
    if tokenizer is None or model.spec.grid[0] > 1:
        return False
    return not isinstance(tokenizer.network, MeaningOnly)


def _trained(store: TokenStore) -> list[TokenDrive]:
    """The drives that say what actions are usual: those of the training, else all."""
    return [drive for drive in store.all if is_in(drive, "train")] or store.all
