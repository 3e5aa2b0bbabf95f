"""Compares predicted frames with real ones, beside a floor and a ceiling."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from tqdm import tqdm

from drives.clips.preprocessing import to_pixels
from tokenizer.losses.lpips import PerceptualDistance
from training.watch.clock import now
from worldmodel.conditioning.text_encoders import Texts
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.text import TextContext
from worldmodel.evaluation.videos.pixels import against_real, beside_real
from worldmodel.windows import TokenClip


@dataclass(frozen=True)
class Futures:
    """Rollouts of some clips.

    Attributes:
        tokens: [clip future horizon height width].
        seconds_per_step: wall-clock seconds per generated time step, prompts included.
    """

    tokens: Int[Tensor, "clip future horizon height width"]
    seconds_per_step: float


def imagine(
    network: Dynamics,
    clips: TokenClip,
    prompt_steps: int,
    sampling: Sampling,
    decoding: Mapping[str, Any],
    num_futures: int = 1,
    title: str = "rollouts",
    texts: Texts | None = None,
) -> Futures:
    """Autoregressive rollouts of every clip after its first `prompt_steps` time steps.

    Args:
        texts: encodes captions; None runs the model without captions.
    """
    captions = captions_of(clips, sampling, texts)
    horizon = clips.tokens.shape[1] - prompt_steps
    device = clips.tokens.device
    began, futures = now(device), []
    for index in tqdm(range(len(clips.tokens)), title, unit="clip"):
        one = slice(index, index + 1)
        futures.append(
            rollout(
                network,
                clips.tokens[one, :prompt_steps],
                clips.actions[one] if network.num_actions else None,
                horizon,
                sampling,
                num_futures,
                **decoding,
                captions=captions and replace(captions, index=captions.index[one]),
            )
        )
    seconds = now(device) - began
    count = len(futures) * num_futures * horizon
    return Futures(torch.cat(futures), seconds / count)


def one_step_ahead(
    network: Dynamics,
    clips: TokenClip,
    prompt_steps: int,
    sampling: Sampling,
    decoding: Mapping[str, Any],
    texts: Texts | None = None,
) -> Int[Tensor, "clip horizon height width"]:
    """Temporally teacher-forced: each frame is sampled given the *real* frames before it."""
    horizon = clips.tokens.shape[1] - prompt_steps
    captions, frames = captions_of(clips, sampling, texts), []
    for index in tqdm(range(len(clips.tokens)), "one step ahead", unit="clip"):
        starts = range(horizon)
        prompts = torch.stack([clips.tokens[index, s : s + prompt_steps] for s in starts])
        actions = torch.stack([clips.actions[index, s : s + prompt_steps + 1] for s in starts])
        given = actions if network.num_actions else None
        text = captions
        if captions is not None:
            windows = [captions.index[index, s : s + prompt_steps + 1] for s in starts]
            text = replace(captions, index=torch.stack(windows))
        next_frames = rollout(network, prompts, given, 1, sampling, **decoding, captions=text)
        frames.append(next_frames[:, 0, 0])
    return torch.stack(frames)


def captions_of(clips: TokenClip, sampling: Sampling, texts: Texts | None) -> TextContext | None:
    """Encoded captions of the clips, and the negative prompt of guidance."""
    if texts is None or clips.text is None:
        return None
    negative = sampling.guidance.negative if sampling.guidance else ""
    return texts.embed(clips.text, clips.tokens.device, negative)


class PixelJudge:
    """Compares frames by PSNR (dB), SSIM and LPIPS."""

    def __init__(self, perceptual: PerceptualDistance) -> None:
        self.perceptual = perceptual

    @torch.no_grad()
    def by_clip(
        self,
        pred: UInt8[Tensor, "clip horizon 3 h w"],
        target: UInt8[Tensor, "clip horizon 3 h w"],
    ) -> dict[str, Float[np.ndarray, "clip horizon"]]:
        """psnr, ssim and lpips of every frame, clip by clip to bound memory."""
        scores: dict[str, list[np.ndarray]] = {"psnr": [], "ssim": [], "lpips": []}
        for made, real in zip(pred, target, strict=True):
            found = against_real(made.movedim(1, -1), real.movedim(1, -1), self.perceptual)
            for name, values in found.items():
                scores[name].append(values.double().cpu().numpy())
        return {name: np.stack(values) for name, values in scores.items()}

    @torch.no_grad()
    def whole(
        self,
        pred: UInt8[Tensor, "clip horizon 3 h w"],
        target: UInt8[Tensor, "clip horizon 3 h w"],
    ) -> dict[str, Float[np.ndarray, " clip"]]:
        """flicker and sharpness of every clip (`beside_real`); of single frames there are none."""
        if target.shape[1] < 2:
            return {}
        pairs = zip(to_pixels(pred), to_pixels(target), strict=True)
        found = [beside_real(made, real) for made, real in pairs]
        names = ("flicker", "sharpness")
        return {name: np.array([float(one[name]) for one in found]) for name in names}

    def compare(
        self,
        pred: UInt8[Tensor, "clip horizon 3 h w"],
        target: UInt8[Tensor, "clip horizon 3 h w"],
    ) -> dict[str, list[float]]:
        """Means over the clips, by horizon."""
        return {
            name: values.mean(0).tolist() for name, values in self.by_clip(pred, target).items()
        }


def identical(
    pred: UInt8[Tensor, "clip horizon 3 h w"], target: UInt8[Tensor, "clip horizon 3 h w"]
) -> Bool[Tensor, "clip horizon"]:
    """Which frames are identical, such as a parked car's; their PSNR is the cap of `psnr`."""
    return (pred == target).flatten(2).all(-1)


def copy_last(
    frames: UInt8[Tensor, "clip time 3 h w"], num_prompt: int
) -> UInt8[Tensor, "clip horizon 3 h w"]:
    """Repeats the last prompt frame: the floor of every rollout."""
    last = frames[:, num_prompt - 1 : num_prompt]
    return last.expand(-1, frames.shape[1] - num_prompt, -1, -1, -1)
