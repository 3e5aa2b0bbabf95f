"""The card `onex` on clips of version 2.0: three grids, the first two given.

A model whose time steps are the grids of a clip predicts the third: 9 frames are given, 8
predicted. A model whose time step is a whole clip predicts the next clip: the three grids of the
second challenge.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from drives.clips.preprocessing import to_uint8
from drives.tokens.store import TokenDrive
from tokenizer.load import Tokenizer
from training.loading.spread import spread
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
from worldmodel.windows import TokenWindows

Frames = UInt8[Tensor, "clip frame 3 h w"]
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
    chosen = Chosen(windows, spread(len(windows), card.num_windows or len(windows)))
    given = 1 if whole else GIVEN
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


def score_pixels(
    subject: JudgedModel,
    card: OnexCard,
    result: Result,
    decoded: Callable[[Tokenizer], Iterable[tuple[Frames, dict[str, Frames]]]],
) -> None:
    """PSNR, SSIM and LPIPS of systems against the decoded real tokens; nothing is kept.

    Args:
        decoded: makes batches of real frames and of each system's, with the tokenizer.
    """
    tokenizer = subject.evidence.tokenizer
    if tokenizer is None:
        result.details["no_pixels"] = "give tokenizer=FOLDER, that of the tokens, for LPIPS"
        return
    judge = subject.judge(card.lpips_net)
    judge.perceptual.check_size(subject.evidence.store.spec.image_size)
    scores: dict[tuple[str, str], list[Float[np.ndarray, "clip frame"]]] = {}
    for target, systems in decoded(tokenizer.to(subject.device)):
        for system, frames in systems.items():
            for name, values in judge.by_clip(frames, target).items():
                scores.setdefault((system, name), []).append(values)
    for (system, name), parts in scores.items():
        result.curve(system, name, np.concatenate(parts))


def _pixels(
    subject: JudgedModel,
    card: OnexCard,
    real: Int[Tensor, "clip time height width"],
    sampled: Int[Tensor, "clip time height width"],
    result: Result,
) -> None:
    """The frames that are predicted, beside the last of those that are given."""
    first = 1 + (GIVEN - 1) * subject.model.spec.frames_per_step

    def decoded(tokenizer: Tokenizer) -> Iterator[tuple[Frames, dict[str, Frames]]]:
        for one, drawn in zip(real, sampled, strict=True):
            truth, pred = (
                to_uint8(tokenizer.decode(grids.to(subject.device)))[None] for grids in (one, drawn)
            )
            seen, target = truth[:, first - 1 : first], truth[:, first:]
            yield target, {MODEL: pred[:, first:], COPY: seen.expand_as(target)}

    score_pixels(subject, card, result, decoded)
    if MODEL in result.curves:
        num = len(result.curves[MODEL]["psnr"])
        result.details["axis"] = {
            "name": "frame of the clip",
            "values": list(range(first + 1, first + num + 1)),
            "scores": ["psnr", "lpips"],
        }
