"""The card `rollout`: how do imagined frames compare with those that the camera saw?"""

import math
from itertools import combinations

import numpy as np
from torch import Tensor

from training.pages.films import write_films
from worldmodel.evaluation.cards.config import RolloutCard
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.pixels import (
    PixelJudge,
    copy_last,
    identical,
    imagine,
    one_step_ahead,
)
from worldmodel.evaluation.report.heat import heat_frames, nats_of_cells
from worldmodel.evaluation.report.strips import Panel, as_arrays, write_comic, write_strip
from worldmodel.evaluation.subject import JudgedClips, JudgedModel

MODEL, AHEAD, CEILING = "autoregressive", "temporally_teacher_forced", "ceiling_tokenizer"
COPY, BEST = "floor_copy_last", "best_of_futures"
SHOWN = 4  # clips in the video


def measure(subject: JudgedModel, card: RolloutCard) -> Result:
    """PSNR, SSIM and LPIPS by horizon, beside floor and ceiling; a video of futures."""
    prompt, horizon = subject.lengths(card)
    clips = subject.clips(prompt, horizon, card.num_clips)
    judge, drawn = subject.judge(card.lpips_net), (subject.sampling, subject.decoding)
    futures = imagine(
        subject.network, clips.tokens, prompt, *drawn, card.num_futures, texts=subject.texts
    )
    ahead = one_step_ahead(subject.network, clips.tokens, prompt, *drawn, subject.texts)
    decoder, target = clips.decoder, clips.frames[:, clips.seen :]
    imagined = [decoder.after_prompt(future) for future in futures.tokens.unbind(1)]
    result = Result(clips.chosen.record(), clips.drives, clips.chosen.names)
    result.floors.append(COPY)
    compared = {
        MODEL: imagined[0],
        AHEAD: decoder.one_step_ahead(ahead),
        CEILING: clips.reconstruction[:, clips.seen :],
        COPY: copy_last(clips.frames, clips.seen),
    }
    for system, frames in compared.items():
        for name, values in judge.by_clip(frames, target).items():
            result.curve(system, name, values)
    if len(imagined) > 1:
        _several(result, judge, imagined, target)
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
    _write_videos(subject, clips, imagined, result)
    return result


def _several(result: Result, judge: PixelJudge, imagined: list[Tensor], target: Tensor) -> None:
    """The future closest to the real one by LPIPS, and how much futures differ."""
    scores = [judge.by_clip(future, target) for future in imagined]
    closest = np.stack([s["lpips"].mean(1) for s in scores]).argmin(0)
    for name in scores[0]:
        values = np.stack([s[name] for s in scores])
        result.curve(BEST, name, values[closest, np.arange(len(closest))])
    pairs = [judge.by_clip(a, b)["lpips"] for a, b in combinations(imagined, 2)]
    result.curve(MODEL, "spread_lpips", np.mean(pairs, axis=0))


def _matches(ahead: Tensor, clips: JudgedClips) -> np.ndarray:
    """Share of every clip's sampled tokens that equal the real ones."""
    real = clips.tokens.tokens[:, clips.prompt_steps :]
    matches: np.ndarray = (ahead == real).flatten(1).double().mean(1).cpu().numpy()
    return matches


def _write_videos(
    subject: JudgedModel, clips: JudgedClips, imagined: list[Tensor], result: Result
) -> None:
    """Films of all clips for the report; a strip and a comic of the first ones for people."""
    by = "tokenizer" if clips.decoder.video is None else "real tokens"
    panels: list[Panel] = [("camera", clips.frames), (by, clips.reconstruction)]
    for number, future in enumerate(imagined):
        panels.append((f"future {number + 1}", clips.with_prompt(future)))
    shown = [(caption, pixels[:SHOWN]) for caption, pixels in panels]
    fps, out = subject.model.spec.fps, subject.out
    write_strip(out, "rollouts", shown, clips.seen, fps)
    write_comic(out, "comic", shown[2][1], shown[0][1], clips.seen, fps)
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
