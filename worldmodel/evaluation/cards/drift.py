"""The card `drift`: what becomes of a world model in its own dreams?"""

import numpy as np
import torch
from torch import Tensor

from training.pages.html_page import shown
from worldmodel.decoding.rollout import rollout
from worldmodel.evaluation.cards.config import DriftCard
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.long_rollouts import (
    bits_by_horizon,
    histogram_distances,
    plain,
    seconds_until_doubled,
    token_counts,
)
from worldmodel.evaluation.pixels import captions_of, copy_last
from worldmodel.evaluation.subject import Chosen, JudgedClips, JudgedModel, between_ends
from worldmodel.windows import TokenWindows

DREAM, REAL, COPY = "own samples", "recording", "floor_copy_last"


def measure(subject: JudgedModel, card: DriftCard) -> Result:
    """Bits, tokens and LPIPS of long rollouts by horizon; seconds until LPIPS doubles."""
    prompt, horizon = subject.lengths(card)
    network, spec = subject.network, subject.model.spec
    chosen, others = _chosen(subject, prompt + horizon, card.num_clips)
    clips = chosen.clip().to(subject.device)
    given = clips.actions if network.num_actions else None
    text = captions_of(clips, subject.sampling, subject.texts)
    start = clips.tokens[:, :prompt]
    futures = rollout(
        network, start, given, horizon, subject.sampling, 1, **subject.decoding, captions=text
    )[:, 0]
    result = Result(chosen.record(), chosen.drives, chosen.names)
    dreams = torch.cat([start, futures], 1)
    for system, tokens in ((DREAM, dreams), (REAL, clips.tokens)):
        bits = bits_by_horizon(network, tokens, given, prompt, text)
        result.curve(system, "bits_per_token", bits)
    second = max(1, round(subject.steps_per_second))
    counts = [
        token_counts(tokens.cpu(), spec.vocab_size, min(second, horizon))
        for tokens in (futures, clips.tokens[:, prompt:], others.clip().tokens[:, prompt:])
    ]
    imagined, real = (histogram_distances(c, counts[1], chosen.drives) for c in counts[::2])
    result.details |= {
        "num_frames": horizon,
        "fps": subject.steps_per_second,
        "histogram_by_second": plain(imagined),
        "histogram_of_real_by_second": plain(real),
        "lines": [
            f"token histogram {shown(imagined[-1].value)} from the recording at the end; "
            f"other real clips {shown(real[-1].value)}"
        ],
    }
    why = subject.why_no_pixels(card.lpips_net)
    if why:
        result.details["no_pixels"] = why
    else:
        seen = subject.clips(prompt, horizon, card.num_clips)
        _excess(subject, card, result, seen, futures)
    return result


def _chosen(subject: JudgedModel, steps: int, num: int) -> tuple[Chosen, Chosen]:
    """The clips, and equally many other real ones."""
    windows = TokenWindows(subject.held, steps)
    chosen = between_ends(windows, num)
    size = len(windows)
    others = [(index + size // (2 * len(chosen.ids)) + 1) % size for index in chosen.ids]
    return chosen, Chosen(windows, others)


def _excess(
    subject: JudgedModel, card: DriftCard, result: Result, clips: JudgedClips, futures: Tensor
) -> None:
    """Add LPIPS to the camera beyond the tokenizer's, twice a second."""
    judge, seen, fps = subject.judge(card.lpips_net), clips.seen, subject.model.spec.fps
    horizon = clips.frames.shape[1] - seen
    every = max(1, min(round(fps / 2), horizon))
    at = list(range(every - 1, horizon, every))
    target = clips.frames[:, seen:][:, at]
    compared = {
        DREAM: clips.decoder.after_prompt(futures)[:, at],
        COPY: copy_last(clips.frames, seen)[:, at],
    }
    floor = judge.by_clip(clips.reconstruction[:, seen:][:, at], target)["lpips"]
    result.floors.append(COPY)
    excess = {}
    for system, pixels in compared.items():
        excess[system] = judge.by_clip(pixels, target)["lpips"] - floor
        result.curve(system, "excess_lpips", excess[system])
    seconds = [(step + 1) / fps for step in at]
    doubled = seconds_until_doubled(excess[DREAM], seconds, clips.drives)
    result.systems[DREAM]["seconds_until_doubled"] = doubled
    mean = excess[DREAM].mean(0)
    beaten = np.flatnonzero(mean >= excess[COPY].mean(0))
    line = f"excess LPIPS does not double within {seconds[-1]:g} s"
    if doubled.value != seconds[-1]:
        line = (
            f"excess LPIPS {shown(float(mean[0]))} after {seconds[0]:g} s; it doubles after "
            f"{shown(doubled.value)} s"
        )
    until = seconds[beaten[0]] if len(beaten) else None
    frozen = (
        f"a frozen frame is as near to the camera after {until:g} s"
        if until is not None
        else f"nearer to the camera than a frozen frame all {seconds[-1]:g} s"
    )
    axis = {"name": "s ahead", "values": seconds}
    result.details |= {"axis": axis, "frozen_frame_as_good_after_s": until}
    result.details["lines"] += [line, frozen]
