"""The card `onex` on clips of version 2.0: three grids, the first two given.

A model whose time steps are the grids of a clip predicts the third: 9 frames are given, 8
predicted. A model whose time step is a whole clip predicts the next clip: the three grids of the
second challenge.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from drives.clips.preprocessing import to_uint8
from drives.tokens.store import TokenDrive
from worldmodel.data import TokenWindows
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.cards.config import OnexCard
from worldmodel.evaluation.cards.floors import put_floors
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.challenges.clip_compression import (
    GIVEN,
    ClipGrids,
    check_clips,
    judge_clips,
    sample_clips,
)
from worldmodel.evaluation.challenges.one_frame_ahead import check_regime
from worldmodel.evaluation.floors.predictors import floors
from worldmodel.evaluation.subject import Chosen, JudgedModel

MODEL, COPY = "world model", "copy last grid"


def check_step(subject: JudgedModel, where: str) -> None:
    """BadInput unless the model's time steps are such clips or their grids."""
    grid = subject.evidence.store.spec.grid
    if _is_whole(subject):
        check_regime(subject.network, where)
        TokenWindows(subject.held, 2)
    else:
        check_clips(subject.network, grid, where)


def measure_clips(subject: JudgedModel, card: OnexCard) -> Result:
    """Cross entropy, top-500 cross entropy and, on demand, sampled frames."""
    whole, network = _is_whole(subject), subject.network
    windows = TokenWindows(subject.held, 2) if whole else ClipGrids(subject.held)
    num = min(card.num_windows or len(windows), len(windows))
    ids = np.unique(np.linspace(0, len(windows) - 1, num).astype(int)).tolist()
    chosen, given = Chosen(windows, ids), 1 if whole else GIVEN
    result = Result(chosen.record(), chosen.drives, chosen.names)
    batches = list(chosen.loader(subject.batch_size))
    found = judge_clips(network, batches, subject.device, card.top, given)
    result.score(MODEL, "nats_per_token", found.nats)
    result.score(MODEL, "bits_per_token", found.nats / math.log(2))
    result.score(MODEL, f"top_{card.top}_nats", found.top_nats)
    result.score(MODEL, f"in_top_{card.top}", found.listed)
    result.score(MODEL, "accuracy_teacher_forced", found.correct)
    vocab = subject.model.spec.vocab_size
    train = [drive if whole else _predicted_grids(drive) for drive in subject.train]
    judged = torch.cat([batch.tokens for batch in batches])[:, given - 1 :]
    fitted_floors(result, train, judged, vocab)
    same = [(b.tokens[:, given:] == b.tokens[:, given - 1 : -1]).flatten(1) for b in batches]
    result.floor(COPY, "accuracy", torch.cat(same).double().mean(1).numpy())
    result.details["regime"] = _regime(whole, network)
    result.details["rate"] = math.log2(vocab) * math.log(2) / float(found.nats.mean())
    if card.sample and not whole:
        drawn = sample_clips(network, batches, subject.device, network.spec.frames_per_step)
        sampled, matches, result.details["seconds_per_frame"] = drawn
        result.score(MODEL, "accuracy", matches)
        _pixels(subject, card, torch.cat([b.tokens for b in batches]), sampled, result)
    return result


def fitted_floors(
    result: Result,
    train: Sequence[TokenDrive],
    windows: Int[Tensor, "window time height width"],
    vocab: int,
) -> None:
    """Cross entropy of trivial predictors, fitted on train drives at the windows' rate.

    Without train drives, a uniform guess alone.
    """
    put_floors(result, floors(train, windows.numpy(), vocab) if train else {}, vocab)


def _predicted_grids(drive: TokenDrive) -> TokenDrive:
    """The drive without the first grid of each clip, which shows a single frame."""
    return replace(drive, tokens=drive.tokens[:, 1:].reshape(-1, *drive.tokens.shape[2:]))


def _is_whole(subject: JudgedModel) -> bool:
    return subject.network.spec.grid == subject.evidence.store.spec.grid


def _regime(whole: bool, network: Dynamics) -> str:
    if whole:
        return "temporally teacher-forced: the clip before is given, the whole clip masked"
    return (
        "9 frames are given, 8 predicted; cross entropy fully teacher-forced, every token from "
        "the real ones before it"
        if not network.independent_cells
        else "9 frames are given, 8 predicted; cross entropy temporally teacher-forced"
    )


def _pixels(
    subject: JudgedModel,
    card: OnexCard,
    real: Int[Tensor, "clip time height width"],
    sampled: Int[Tensor, "clip time height width"],
    result: Result,
) -> None:
    """PSNR, SSIM and LPIPS of the predicted frames against the decoded real tokens."""
    tokenizer = subject.evidence.tokenizer
    if tokenizer is None:
        result.details["no_pixels"] = "give tokenizer=FOLDER, that of the tokens, for LPIPS"
        return
    tokenizer, judge = tokenizer.to(subject.device), subject.judge(card.lpips_net)
    judge.perceptual.check_size(subject.evidence.store.spec.image_size)
    first = 1 + (GIVEN - 1) * tokenizer.frames_per_step
    scores: dict[tuple[str, str], list[Float[np.ndarray, "1 frame"]]] = {}
    for one, drawn in zip(real, sampled, strict=True):
        truth, pred = (
            to_uint8(tokenizer.decode(grids.to(subject.device)))[None] for grids in (one, drawn)
        )
        seen, target = truth[:, first - 1 : first], truth[:, first:]
        for system, frames in ((MODEL, pred[:, first:]), (COPY, seen.expand_as(target))):
            for name, values in judge.by_clip(frames, target).items():
                scores.setdefault((system, name), []).append(values)
    for (system, name), parts in scores.items():
        result.curve(system, name, np.concatenate(parts))
    result.details["axis"] = {
        "name": "frame of the clip",
        "values": list(range(first + 1, len(truth[0]) + 1)),
        "scores": ["psnr", "lpips"],
    }
