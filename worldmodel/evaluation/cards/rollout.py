"""The card `rollout`: how do imagined frames compare with those that the camera saw?"""

import math
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from training.pages.films import write_films
from worldmodel.evaluation.cards.config import RolloutCard
from worldmodel.evaluation.cards.result import VIDEO, Result, made_by
from worldmodel.evaluation.intervals import difference
from worldmodel.evaluation.pixels import (
    PixelJudge,
    copy_last,
    identical,
    imagine,
    one_step_ahead,
)
from worldmodel.evaluation.report.heat import heat_frames, nats_of_cells
from worldmodel.evaluation.report.strips import Panel, as_arrays, write_comic, write_strip
from worldmodel.evaluation.report.terminal import interval
from worldmodel.evaluation.subject import JudgedClips, JudgedModel

MODEL, AHEAD, CEILING = "autoregressive", "temporally_teacher_forced", "ceiling_tokenizer"
COPY, BEST = "floor_copy_last", "best_of_futures"
AHEAD_CEILING = "ceiling_one_step_ahead"
SHOWN = 4  # clips in the video


def measure(subject: JudgedModel, card: RolloutCard) -> Result:
    """PSNR, SSIM and LPIPS by horizon, flicker and sharpness, beside floor and ceiling; films.

    With a video decoder, every system is there by the tokenizer's own decoder and by that one.
    """
    prompt, horizon = subject.lengths(card)
    clips = subject.clips(prompt, horizon, card.num_clips)
    judge, drawn = subject.judge(card.lpips_net), (subject.sampling, subject.decoding)
    futures = imagine(
        subject.network, clips.tokens, prompt, *drawn, card.num_futures, texts=subject.texts
    )
    ahead = one_step_ahead(subject.network, clips.tokens, prompt, *drawn, subject.texts)
    target = clips.frames[:, clips.seen :]
    result = Result(clips.chosen.record(), clips.drives, clips.chosen.names)
    result.floors.append(COPY)
    compared: dict[str, Tensor] = {}
    imagined: dict[str, list[Tensor]] = {}
    for by, decoder in clips.decoders.items():
        imagined[by] = [decoder.after_prompt(future) for future in futures.tokens.unbind(1)]
        compared |= {
            made_by(MODEL, by): imagined[by][0],
            made_by(AHEAD, by): decoder.one_step_ahead(ahead),
            made_by(CEILING, by): decoder.real()[:, clips.seen :],
        }
        if by:  # it reads what comes after a frame, where it is there; one step ahead it is not
            real = clips.tokens.tokens[:, prompt:]
            compared[made_by(AHEAD_CEILING, by)] = decoder.one_step_ahead(real)
    compared[COPY] = copy_last(clips.frames, clips.seen)
    for system, frames in compared.items():
        for name, values in judge.by_clip(frames, target).items():
            result.curve(system, name, values)
        for name, values in judge.whole(frames, target).items():
            result.score(system, name, values)
    for by, made in imagined.items() if card.num_futures > 1 else ():
        _several(result, judge, made, target, by)
    result.score(AHEAD, "token_accuracy", _matches(ahead, clips))
    model = subject.model
    result.details |= {
        "prompt_steps": prompt,
        "num_prompt_frames": clips.seen,
        "num_frames": target.shape[1],
        "fps": model.spec.fps,
        "num_futures": card.num_futures,
        "num_identical": {n: int(identical(f, target).sum()) for n, f in compared.items()},
        "seconds_per_frame": futures.seconds_per_step / model.spec.frames_per_step,
    }
    if VIDEO in imagined:
        result.details["lines"] = [_gain(result, name) for name in (MODEL, CEILING)]
    _write_videos(subject, clips, imagined, result)
    return result


def _gain(result: Result, system: str) -> str:
    """What a video decoder adds to the scores of a system, on the same tokens."""
    values, other = result.values[system], result.values[made_by(system, VIDEO)]
    gains = [
        f"{name} {interval(difference(other[name], values[name], result.drives).plain())}"
        for name in ("lpips", "psnr", "flicker", "sharpness")
        if name in values
    ]
    return f"{system}: video decoder less the tokenizer's own: {', '.join(gains)}"


def _several(
    result: Result, judge: PixelJudge, imagined: list[Tensor], target: Tensor, by: str
) -> None:
    """The future closest to the real one by LPIPS, and how much futures differ."""
    scores = [judge.by_clip(future, target) for future in imagined]
    closest = np.stack([s["lpips"].mean(1) for s in scores]).argmin(0)
    for name in scores[0]:
        values = np.stack([s[name] for s in scores])
        result.curve(made_by(BEST, by), name, values[closest, np.arange(len(closest))])
    pairs = [judge.by_clip(a, b)["lpips"] for a, b in combinations(imagined, 2)]
    result.curve(made_by(MODEL, by), "spread_lpips", np.mean(pairs, axis=0))


def _matches(ahead: Tensor, clips: JudgedClips) -> np.ndarray:
    """Share of every clip's sampled tokens that equal the real ones."""
    real = clips.tokens.tokens[:, clips.prompt_steps :]
    matches: np.ndarray = (ahead == real).flatten(1).double().mean(1).cpu().numpy()
    return matches


def _write_videos(
    subject: JudgedModel,
    clips: JudgedClips,
    imagined: dict[str, list[Tensor]],
    result: Result,
) -> None:
    """Films of all clips for the report; a strip and a comic of the first ones for people.

    Args:
        imagined: futures by who makes their frames.
    """
    panels: list[Panel] = [("camera", clips.frames)]
    panels += [(by or "tokenizer", decoder.real()) for by, decoder in clips.decoders.items()]
    made = [
        (made_by(f"future {number}", by), torch.cat([decoder.prompt, imagined[by][number - 1]], 1))
        for number in range(1, len(imagined[""]) + 1)
        for by, decoder in clips.decoders.items()
    ]
    panels += made
    shown = [(caption, pixels[:SHOWN]) for caption, pixels in panels]
    fps, out = subject.model.spec.fps, subject.out
    write_strip(out, "rollouts", shown, clips.seen, fps)
    first = dict(made)[made_by("future 1", list(clips.decoders)[-1])]
    write_comic(out, "comic", first[:SHOWN], shown[0][1], clips.seen, fps)
    most = math.log2(subject.model.spec.vocab_size)
    bits = nats_of_cells(subject.network, clips.tokens, subject.texts) / math.log(2)
    by_frame = bits[:, clips.decoder.first_step :].repeat_interleave(
        subject.model.spec.frames_per_step, dim=1
    )
    films = {caption: as_arrays(pixels) for caption, pixels in panels}
    films[f"bits per token, bright: {most:.3g}"] = heat_frames(by_frame, most)
    score = ("LPIPS", result.values[MODEL]["lpips"])
    result.details["films"] = write_films(
        out / "films_rollout", films, clips.chosen.names, clips.seen, fps, score
    )
