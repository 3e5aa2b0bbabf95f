"""commaVQ's evaluation: cross entropy in windows of 20 frames, BOS included.

As eval.ipynb of github.com/commaai/commavq. A segment of 1,200 frames is a sequence of [BOS, 128
tokens] per frame. Its first 1,180 frames are cut into 59 windows of 20; each begins without a past.
The targets are the sequence, moved up by one, so a window's last target is the BOS of the next
frame. One target in 129 is a BOS and costs next to nothing.
"""

import math
from collections.abc import Iterable, Sequence
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
from worldmodel.windows import TokenClip, TokenWindows

FRAMES = 20


@dataclass(frozen=True)
class WindowNats:
    """Sums over windows, in nats.

    Attributes:
        real: cross entropy of the tokens.
        separators: of the BOS targets; None where the head has none.
        frames: of a window.
        tokens: of a frame.
        vocab_size: different tokens.
    """

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


def commavq_windows(drives: Sequence[TokenDrive], frames: int = FRAMES) -> TokenWindows:
    """Windows that begin every `frames` frames, each with the next frame for its BOS.

    Raises:
        BadInput: every drive is shorter than that.
    """
    return TokenWindows(drives, frames + 1, stride=frames)


def check_context(network: Dynamics, frames: int, where: str) -> None:
    """BadInput where the context is shorter than a window."""
    context = network.config.context_steps
    if context < frames:
        raise BadInput(
            f"{where}.frames={frames}: the model reads {context} frames, and commaVQ's numbers are "
            f"those of {frames}; give {where}.frames={context} with a version of your own"
        )


@torch.no_grad()
def judge_windows(network: Dynamics, clips: Iterable[TokenClip], device: str) -> WindowNats:
    """Nats of every window of `commavq_windows`."""
    real, separators, frames = [], [], 0
    for batch in tqdm(clips, "windows", unit="batch"):
        clip = batch.to(device)
        frames = clip.tokens.shape[1] - 1
        nats, ends = window_nats(network, clip.tokens[:, :frames], clip.actions[:, :frames])
        real.append(nats.cpu().numpy())
        separators += [] if ends is None else [ends.cpu().numpy()]
    return WindowNats(
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

    If the head predicts BOS, as commaVQ's does, the distribution is over all ids. Else it is over
    the tokens, without BOS targets.
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
    """Whether the sequence is [BOS, tokens] per frame and the head has a row for BOS."""
    if not isinstance(network, GPT) or network.config.look_back:
        return False
    layout = network.layout
    plain = network.config.layout.actions == "none" and not network.reads_text
    alone = plain and not layout.lead_length and layout.prefix_length == 1
    return alone and network.num_head_ids > layout.no_action_id
