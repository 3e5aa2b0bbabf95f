"""The card `onex`: 1X's challenge, on windows of version 1.1 or on clips of version 2.0."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from tokenizer.load import Tokenizer
from training.errors import BadInput
from training.loading.spread import spread
from worldmodel.evaluation.cards.config import OnexCard
from worldmodel.evaluation.cards.onex_clips import (
    Frames,
    check_step,
    fitted_floors,
    measure_clips,
    score_pixels,
)
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.challenges.one_frame_ahead import (
    FramesAhead,
    check_regime,
    first_pass,
    judge_windows,
    leaderboard_row,
)
from worldmodel.evaluation.challenges.spaced_windows import SpacedWindows
from worldmodel.evaluation.clip_decoder import decode_grids
from worldmodel.evaluation.subject import Chosen, JudgedModel
from worldmodel.windows import TokenClip

WHERE, MODEL, COPY = "cards.onex", "world model", "copy last frame"
TITLE = "| model | cross entropy | accuracy | LPIPS | s/frame |"


def check(subject: JudgedModel, card: OnexCard) -> None:
    """Refuse another regime, rate or length than the challenge's.

    Raises:
        BadInput: a network that reads real tokens of the frame that it predicts, a shorter
            context, another rate, or a tokenizer of another bit order.
    """
    _check_tokenizer(subject)
    if subject.evidence.store.spec.grid[0] > 1:
        check_step(subject, WHERE)
        return
    check_regime(subject.network, WHERE)
    context = subject.network.config.context_steps
    if context < card.frames:
        raise BadInput(
            f"{WHERE}.frames={card.frames}: the model reads {context} frames; the challenge has "
            f"{card.frames}: give {WHERE}.frames={context} with a version of your own"
        )
    store = subject.evidence.store.spec
    rate = store.fps / store.frames_per_step / card.every
    if abs(rate / subject.steps_per_second - 1) > 0.01:
        raise BadInput(
            f"{WHERE}.every={card.every}: makes {rate:g} frames per second of the store's "
            f"{store.fps:g}, and the model was made for {subject.steps_per_second:g}; give "
            f"{WHERE}.every={max(1, round(card.every * rate / subject.steps_per_second))} with a "
            "version of your own"
        )
    _windows(subject, card)


def measure(subject: JudgedModel, card: OnexCard) -> Result:
    """The row of 1X's table with intervals, beside a copy and a guess."""
    if subject.evidence.store.spec.grid[0] > 1:
        return measure_clips(subject, card)
    network, chosen = check_regime(subject.network, WHERE), _windows(subject, card)
    result = Result(chosen.record(), chosen.drives, chosen.names)
    clips = list(chosen.loader(subject.batch_size))
    if card.sample:
        found = judge_windows(
            network, clips, chosen.names, subject.device, card.num_passes, card.order
        )
    else:
        found = first_pass(network, clips, subject.device)
    result.curve(MODEL, "nats_per_token", found.nats)
    result.curve(MODEL, "bits_per_token", found.nats / math.log(2))
    result.score(MODEL, "accuracy_of_first_pass", found.correct.mean(1))
    vocab = subject.model.spec.vocab_size
    thinned = [replace(drive, tokens=drive.tokens[:: card.every]) for drive in subject.train]
    fitted_floors(result, thinned, torch.cat([clip.tokens for clip in clips]), vocab)
    result.curve(COPY, "accuracy", _copies(clips))
    result.floors.append(COPY)
    if found.matches is not None:
        result.curve(MODEL, "accuracy", found.matches)
        _pixels(subject, card, clips, found, result)
    mean = {name: estimate.value for name, estimate in result.systems[MODEL].items()}
    row = leaderboard_row(
        str(subject.model.path.name),
        float(found.nats.mean()),
        mean.get("accuracy"),
        mean.get("lpips"),
        found.seconds_per_frame,
    )
    result.details |= {
        "regime": "temporally teacher-forced: real frames before, the whole frame masked",
        "seconds_per_frame": found.seconds_per_frame,
        "rate": math.log2(vocab) * math.log(2) / float(found.nats.mean()),
        "lines": [TITLE, row],
        "axis": {
            "name": "real frames seen",
            "values": list(range(1, card.frames)),
            "scores": ["nats_per_token", "accuracy", "lpips"],
        },
    }
    return result


def _windows(subject: JudgedModel, card: OnexCard) -> Chosen:
    windows = SpacedWindows(subject.held, card.frames, card.every, disjoint=True)
    return Chosen(windows, spread(len(windows), card.num_windows or len(windows)))


def _copies(clips: list[TokenClip]) -> Float[np.ndarray, "window frame"]:
    """Share of tokens that equal those of the frame before."""
    same = [(c.tokens[:, 1:] == c.tokens[:, :-1]).flatten(2).double().mean(-1) for c in clips]
    return torch.cat(same).numpy()


def _pixels(
    subject: JudgedModel, card: OnexCard, clips: list[TokenClip], found: FramesAhead, result: Result
) -> None:
    """The sampled frames, beside the real ones before them."""
    sampled = found.sampled
    assert sampled is not None

    def decoded(tokenizer: Tokenizer) -> Iterator[tuple[Frames, dict[str, Frames]]]:
        start = 0
        for batch in clips:
            frames = decode_grids(tokenizer, batch.tokens.to(subject.device))
            drawn = sampled[start : start + len(frames)].to(subject.device)
            yield frames[:, 1:], {MODEL: decode_grids(tokenizer, drawn), COPY: frames[:, :-1]}
            start += len(frames)

    score_pixels(subject, card, result, decoded)


def _check_tokenizer(subject: JudgedModel) -> None:
    """BadInput where the tokenizer at hand reads the bits of a token in another order."""
    tokenizer, order = subject.evidence.tokenizer, subject.evidence.store.spec.bit_order
    if tokenizer is not None and tokenizer.network.quantizer.bit_order != order:
        raise BadInput(
            f"tokenizer: reads the bits of a token as {tokenizer.network.quantizer.bit_order!r}, "
            f"but {subject.evidence.store.root} holds them as {order!r}; convert it with "
            f"options.bit_order={order}"
        )
