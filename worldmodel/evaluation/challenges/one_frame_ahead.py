"""1X's evaluation: every frame of a window is predicted from the real frames before it.

As genie/evaluate.py of github.com/1x-technologies/1xgpt, temporally teacher-forced: for frame t
the model sees the real frames before it, and frame t masked. The cross entropy is that of the
first pass, where all of frame t is masked, so the tokens and their factors are independent. The
accuracy is that of a frame sampled in a few passes. The first frame of a window is never judged.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from training.errors import BadInput
from training.watch.clock import now
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.maskgit import MaskGIT
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.masked.model import Masked
from worldmodel.windows import TokenClip

GREEDY = Sampling(greedy=True)


@dataclass(frozen=True)
class FramesAhead:
    """Scores of windows and, where frames were sampled, these frames.

    Attributes:
        nats: cross entropy in nats per token, by window and by frame from the second on.
        correct: share of tokens whose most probable value in the first pass is the real one.
        sampled: tokens of the sampled frames, if any.
        matches: share of the sampled tokens that equal the real ones.
        seconds_per_frame: to sample a frame of one window; nothing is decoded to pixels.
    """

    nats: Float[np.ndarray, "window frame"]
    correct: Float[np.ndarray, "window frame"]
    sampled: Int[Tensor, "window frame height width"] | None = None
    matches: Float[np.ndarray, "window frame"] | None = None
    seconds_per_frame: float | None = None


def check_regime(network: Dynamics, where: str) -> Masked:
    """The network, if it predicts all tokens of a frame at once from the frames before.

    Raises:
        BadInput: it also reads tokens of the frame itself, which alone lowers the cross entropy.
    """
    if not isinstance(network, Masked):
        raise BadInput(
            f"{where}: a {type(network).__name__} predicts a token from real tokens of the same "
            "frame too, and 1X's cross entropy is one without; take a masked model, or card="
            "teacher_forced"
        )
    return network


@torch.no_grad()
def first_pass(network: Masked, clips: Iterable[TokenClip], device: str) -> FramesAhead:
    """Scores of windows of any length that fits the context; samples nothing."""
    nats, correct = [], []
    for batch in tqdm(clips, "first pass", unit="batch"):
        clip = batch.to(device)
        scores = network.score(clip.tokens, clip.actions if network.num_actions else None)
        nats.append(scores.nats[:, 1:].double().mean(-1).cpu().numpy())
        correct.append(scores.correct[:, 1:].double().mean(-1).cpu().numpy())
    return FramesAhead(np.concatenate(nats), np.concatenate(correct))


def judge_windows(
    network: Masked,
    clips: Iterable[TokenClip],
    names: Sequence[str],
    device: str,
    num_passes: int = 2,
    order: str = "random",
    seed: int = 0,
) -> FramesAhead:
    """Scores of windows, and a sample of each of their frames.

    Args:
        names: of the windows; seed and name decide a window's random numbers, so other windows and
            the batch size do not.
    """
    clips = list(clips)
    scored, start = first_pass(network, clips, device), 0
    sampled, real, seconds = [], [], 0.0
    for batch in tqdm(clips, "frames ahead", unit="batch"):
        clip, stop = batch.to(device), start + len(batch.tokens)
        noise = drawn(names[start:stop], clip.tokens, num_passes, seed)
        began = now(device)
        frames = sample_frames(network, clip, num_passes, order, noise)
        seconds += now(device) - began
        sampled.append(frames.cpu())
        real.append(batch.tokens[:, 1:])
        start = stop
    frames = torch.cat(sampled)
    matches = (frames == torch.cat(real)).flatten(2).double().mean(-1).numpy()
    count = frames.shape[0] * frames.shape[1]
    return FramesAhead(scored.nats, scored.correct, frames, matches, seconds / count)


def drawn(
    names: Sequence[str], tokens: Int[Tensor, "batch time height width"], passes: int, seed: int
) -> Float[Tensor, "frame draw batch space"]:
    """Uniform numbers that decide the order in which tokens settle."""
    shape = (tokens.shape[1] - 1, passes, tokens[0, 0].numel())
    numbers = []
    for name in names:
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        numbers.append(torch.rand(shape, generator=generator))
    return torch.stack(numbers, dim=2).to(tokens.device)


def sample_frames(
    network: Masked,
    clip: TokenClip,
    num_passes: int,
    order: str,
    noise: Float[Tensor, "frame draw batch space"],
) -> Int[Tensor, "batch frame height width"]:
    """The likeliest tokens of every frame but the first, given the real frames before.

    Args:
        order: as `MaskGIT` takes it.
        noise: of every frame; see `MaskGIT.fill`. Only order="random" reads it.
    """
    actions = clip.actions if network.num_actions else None
    decoder = MaskGIT(network, GREEDY, num_passes, order)
    decoder.start(clip.tokens[:, :1], actions)
    batch, time = clip.tokens.shape[:2]
    num_factors, space = len(network.factors.sizes), decoder.layout.tokens_per_step
    unread = noise.new_zeros(num_passes, num_factors, batch, space)  # the argmax needs none
    frames = []
    for frame in range(1, time):
        decoder.begin(None if actions is None else actions[:, frame - 1])
        frames.append(decoder.fill(unread, noise[frame - 1] if order == "random" else None))
        decoder.append(clip.tokens[:, frame].flatten(1))
    return torch.stack(frames, dim=1).view(batch, time - 1, *clip.tokens.shape[2:])


def leaderboard_row(
    name: str,
    nats: float,
    accuracy: float | None,
    lpips: float | None,
    seconds_per_frame: float | None,
) -> str:
    """A row of 1X's table: cross entropy, accuracy, LPIPS, seconds per frame."""
    cells = [name, f"{nats:.2f}"]
    for value, digits in ((accuracy, 4), (lpips, 3), (seconds_per_frame, 3)):
        cells.append("-" if value is None else f"{value:.{digits}f}")
    return f"| {' | '.join(cells)} |"
