"""The card `distance`: are imagined videos, as a whole, like real ones?"""

from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from tokenizer.compare.fid import load_inception
from training.pages.wording import counted
from worldmodel.evaluation.cards.config import DistanceCard
from worldmodel.evaluation.cards.result import Result, made_by
from worldmodel.evaluation.pixels import copy_last, imagine
from worldmodel.evaluation.subject import JudgedModel
from worldmodel.evaluation.videos import frechet
from worldmodel.evaluation.videos.features import ALONE, Networks, features_of
from worldmodel.evaluation.videos.i3d import SIDE, load_i3d, weights_sha256
from worldmodel.windows import TokenWindows

MODEL, CEILING, COPY = "world model", "ceiling_tokenizer", "floor_copy_last"
REAL, HALF = "real", "real_other_half"
USUAL_FRAMES = 16
Videos = UInt8[Tensor, "clip time h w 3"]


def lacks(subject: JudgedModel, card: DistanceCard) -> str:
    """Why there is nothing to measure: no pixels, no weights, or too few clips."""
    if "fid" in card.features and subject.inception_weights is None:
        return "features=fid needs inception_weights=FILE (no package ships them)"
    if subject.evidence.tokenizer is None or not subject.evidence.drives:
        return "no drives and tokenizer at hand: tokens only"
    prompt, horizon = subject.lengths(card)
    have = min(card.num_clips, len(TokenWindows(subject.held, prompt + horizon)))
    if have < card.min_clips:
        return (
            f"it needs min_clips={card.min_clips} clips of {card.clip_frames} frames, and there "
            f"are {have}: with fewer the distance tells the number of clips"
        )
    return ""


def measure(subject: JudgedModel, card: DistanceCard) -> Result:
    """Frechet distances to the real clips, and scores of each video by itself."""
    prompt, horizon = subject.lengths(card)
    clips = subject.clips(prompt, horizon, card.num_clips)
    drawn = (subject.sampling, subject.decoding)
    futures = imagine(subject.network, clips.tokens, prompt, *drawn, texts=subject.texts)
    videos = {REAL: clips.frames[:, clips.seen :]}
    for by, decoder in clips.decoders.items():
        videos[made_by(MODEL, by)] = decoder.after_prompt(futures.tokens[:, 0])
        videos[made_by(CEILING, by)] = decoder.real()[:, clips.seen :]
    videos[COPY] = copy_last(clips.frames, clips.seen)
    shown = {name: _cut(frames, card.clip_frames) for name, frames in videos.items()}
    networks, weights = _networks(subject, card)
    features = {name: features_of(v, networks, clips.drives) for name, v in shown.items()}
    result = Result(clips.chosen.record(), clips.drives, clips.chosen.names)
    result.floors += [COPY]
    curves: dict[str, Any] = {}
    for kind in card.features:
        real = features[REAL][kind]
        for name in (system for system in features if system != REAL):
            found = frechet.estimate(real, features[name][kind])
            result.systems.setdefault(name, {})[f"frechet_{kind}"] = found
        first, second = frechet.halves(real)
        found = frechet.estimate(first, second)
        result.systems.setdefault(HALF, {})[f"frechet_{kind}"] = found
        curves[kind] = frechet.curve(real, features[MODEL][kind])
    for name, frames in shown.items():
        for score, of in ALONE.items():
            result.score(name, score, np.array([float(of(clip)) for clip in frames]))
    result.details |= {
        "clip_frames": card.clip_frames,
        "fps": subject.model.spec.fps,
        "side": card.side,
        "weights": weights,
        "by_num_clips": curves,
        "warnings": _warnings(card, len(set(clips.drives))),
    }
    return result


def _cut(frames: UInt8[Tensor, "clip time 3 h w"], num: int) -> Videos:
    return rearrange(frames[:, :num], "clip time c h w -> clip time h w c").cpu()


def _networks(subject: JudgedModel, card: DistanceCard) -> tuple[Networks, dict[str, str]]:
    """Networks of the features, and hashes of their weights."""
    i3d = inception = None
    weights = {}
    if "fvd" in card.features:
        i3d = load_i3d(subject.i3d_weights).to(subject.device)
        weights["i3d"] = weights_sha256(i3d)
    if "fid" in card.features:
        assert subject.inception_weights is not None
        inception = load_inception(subject.inception_weights).to(subject.device)
        weights["inception"] = weights_sha256(inception)
    return Networks(i3d, inception, card.side, card.images_per_clip), weights


def _warnings(card: DistanceCard, num_drives: int) -> dict[str, str]:
    """Why the distance differs from published ones."""
    found = {}
    if "fvd" in card.features and card.side != SIDE:
        found["resize"] = f"side={card.side}: published FVDs scale frames to {SIDE}"
    if card.clip_frames != USUAL_FRAMES:
        found["clip_frames"] = f"{card.clip_frames} frames: published FVDs are of {USUAL_FRAMES}"
    if num_drives < 8:
        found["few_drives"] = (
            f"the clips are of {counted(num_drives, 'drive')}: intervals are wide or none"
        )
    return found
