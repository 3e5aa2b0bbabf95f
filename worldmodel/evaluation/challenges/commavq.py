"""commaVQ's evaluation: cross entropy in windows of 20 frames, BOS included.

As eval.ipynb of github.com/commaai/commavq: a segment of 1,200 frames is the sequence of
[BOS, 128 tokens] per frame. Its first 1,180 frames are cut into 59 windows of 20; the targets are
the sequence, moved up by one. So the last target of a window is the BOS of the frame after it, each
window begins without a past, and a target in 129 is a BOS, which costs next to nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from drives.tokens.store import TokenDrive
from training.errors import BadInput
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.gpt.model import GPT

FRAMES = 20
BATCH = 10  # windows, as in the notebook


@dataclass(frozen=True)
class WindowNats:
    """Sums over windows, in nats.

    Attributes:
        names: drive@first frame, of every window.
        drives: the segment of every window.
        real: of the tokens.
        separators: of the BOS targets; None where the head has none.
        frames: of a window.
        tokens: of a frame.
        vocab_size: different tokens.
    """

    names: list[str]
    drives: list[str]
    real: Float[np.ndarray, " window"]
    separators: Float[np.ndarray, " window"] | None
    frames: int
    tokens: int
    vocab_size: int

    @property
    def with_separators(self) -> Float[np.ndarray, " window"] | None:
        """Nats per target, BOS counted: the notebook's number."""
        if self.separators is None:
            return None
        return (self.real + self.separators) / (self.frames * (self.tokens + 1))

    @property
    def without_separators(self) -> Float[np.ndarray, " window"]:
        """Nats per token."""
        return self.real / (self.frames * self.tokens)

    @property
    def bits_with_separators(self) -> Float[np.ndarray, " window"] | None:
        """Bits per token of a code that also pays for BOS."""
        if self.separators is None:
            return None
        return (self.real + self.separators) / (self.frames * self.tokens * math.log(2))

    @property
    def bits_without_separators(self) -> Float[np.ndarray, " window"]:
        """Bits per token of a code whose reader knows where BOS stands."""
        return self.without_separators / math.log(2)

    def rate(self, bits: float) -> float:
        """Raw bits of a token (10 where there are 1024) per bit of the model."""
        return math.log2(self.vocab_size) / bits


def windows_of(drive: TokenDrive, frames: int = FRAMES) -> list[int]:
    """First frames of the windows; a frame after the last is needed, whose BOS is a target."""
    return list(range(0, len(drive.tokens) - frames, frames))


def check_context(network: Dynamics, drives: Sequence[TokenDrive], frames: int, where: str) -> None:
    """Refuse what cannot be measured.

    Raises:
        BadInput: a context shorter than a window, or no drive that is longer than one.
    """
    context = network.config.context_steps
    if context < frames:
        raise BadInput(
            f"{where}.frames={frames}: the model reads {context} frames; its own number of "
            f"commaVQ needs {frames}: give {where}.frames={context} with a version of your own"
        )
    longest = max((len(drive.tokens) for drive in drives), default=0)
    if longest <= frames:
        raise BadInput(
            f"{where}.frames={frames}: a window needs a segment of {frames + 1} frames, and the "
            f"longest has {longest}; give longer segments"
        )


@torch.no_grad()
def judge_segments(
    network: Dynamics, drives: Sequence[TokenDrive], device: str, frames: int = FRAMES
) -> WindowNats:
    """Nats of every window of every drive."""
    places = [(drive, start) for drive in drives for start in windows_of(drive, frames)]
    real, separators = [], []
    for first in tqdm(range(0, len(places), BATCH), "windows of 20 frames", unit="batch"):
        batch = places[first : first + BATCH]
        clips = [np.asarray(d.tokens[s : s + frames], np.int64) for d, s in batch]
        acts = [np.asarray(d.actions[s : s + frames], np.float32) for d, s in batch]
        tokens, actions = (torch.from_numpy(np.stack(x)).to(device) for x in (clips, acts))
        nats, ends = window_nats(network, tokens, actions)
        real.append(nats.cpu().numpy())
        separators += [] if ends is None else [ends.cpu().numpy()]
    return WindowNats(
        [f"{drive.id}@{start}" for drive, start in places],
        [drive.id for drive, _ in places],
        np.concatenate(real),
        np.concatenate(separators) if separators else None,
        frames,
        network.spec.tokens_per_step,
        network.spec.vocab_size,
    )


def window_nats(
    network: Dynamics,
    tokens: Int[Tensor, "batch time height width"],
    actions: Float[Tensor, "batch time action"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"] | None]:
    """Sums over the tokens and over the BOS targets of each window.

    Where the head predicts BOS as well, as commaVQ's does, the distribution is over all ids. Else
    it is over the tokens, and there are no BOS targets.
    """
    if not predicts_separators(network):
        scores = network.score(tokens, actions if network.num_actions else None)
        return scores.nats.double().sum((1, 2)), None
    assert isinstance(network, GPT)
    ids = network.layout.sequence_ids(tokens)
    separator = network.layout.no_action_id
    targets = torch.cat([ids[:, 1:], ids.new_full((len(ids), 1), separator)], dim=1)
    logits = network.sequence_logits(ids).float()
    nats = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    )
    nats, is_end = nats.view(targets.shape).double(), targets == separator
    return nats.masked_fill(is_end, 0).sum(1), nats.masked_fill(~is_end, 0).sum(1)


def predicts_separators(network: Dynamics) -> bool:
    """Whether its sequence is [BOS, tokens] per frame, and its head has a row for BOS."""
    if not isinstance(network, GPT) or network.config.look_back:
        return False
    layout = network.layout
    plain = network.config.layout.actions == "none" and not network.reads_text
    alone = plain and not layout.lead_length and layout.prefix_length == 1
    return alone and network.num_head_ids > layout.no_action_id
