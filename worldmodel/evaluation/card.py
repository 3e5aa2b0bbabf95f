"""The evaluation card of a world model: scores, floors, ceilings, rollouts, steering."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from tokenizer.drives import Drive
from tokenizer.load import Tokenizer
from tokenizer.lpips_weights import load_lpips
from tokenizer.token_store import TokenStore
from training.errors import BadInput
from training.loader import fixed_loader
from worldmodel.data import TokenClip, TokenWindows, collate
from worldmodel.decoding import Sampling, open_decoder
from worldmodel.evaluation.action_use import action_use
from worldmodel.evaluation.floors import floors
from worldmodel.evaluation.pixels import (
    PixelJudge,
    copy_last,
    imagine,
    mean_of,
    one_step_ahead,
)
from worldmodel.evaluation.scores import teacher_forced
from worldmodel.evaluation.steering import (
    can_steer,
    scene_motion,
    steered_actions,
    steering_amplitude,
)
from worldmodel.evaluation.strips import Panel, write_strip
from worldmodel.load import WorldModel


@dataclass(frozen=True)
class EvalConfig:
    """What to measure.

    Attributes:
        split: which drives.
        num_windows: windows of the teacher-forced scores.
        num_clips: clips rolled out; prompts are spread evenly over the drives.
        prompt_steps: real steps before a rollout; None means half of the context.
        horizon_s: seconds imagined.
        num_futures: futures per prompt in the video.
        decoding: the method and its options, as `open_decoder` takes them.
    """

    split: str = "test"
    num_windows: int = 256
    batch_size: int = 16
    num_clips: int = 8
    prompt_steps: int | None = None
    horizon_s: float = 2.0
    num_futures: int = 2
    lpips_net: str = "alex"
    lpips_weights: Path | None = None
    sampling: Sampling = field(default_factory=Sampling)
    decoding: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What there is to judge with; no drives or no tokenizer means no pixels.

    Attributes:
        every: frames per kept frame when the drives were encoded.
    """

    store: TokenStore
    drives: Sequence[Drive] = ()
    tokenizer: Tokenizer | None = None
    every: int = 1


def evaluate(
    model: WorldModel, evidence: Evidence, config: EvalConfig, out: Path, device: str
) -> dict[str, Any]:
    """Measure everything that can be measured; strips are written to `out`.

    Raises:
        BadInput: the store is not the model's, or the prompt is longer than its context.
    """
    model.check_store(evidence.store)
    context = model.network.config.context_steps
    prompt = config.prompt_steps or max(2, context // 2)
    if not 2 <= prompt < context:
        raise BadInput(
            f"prompt_steps={prompt}: the context of {model.path} is {context} steps; "
            f"choose 2 .. {context - 1}"
        )
    network = model.network.to(device)
    open_decoder(network, config.sampling, **config.decoding)  # refuses before anything is measured
    held = evidence.store.drives(config.split)
    windows = TokenWindows(held, context)
    loader = fixed_loader(windows, config.num_windows, config.batch_size, collate)
    vocab = model.spec.vocab_size
    nats = floors(evidence.store.drives("train"), held, vocab)
    texts = model.texts()
    scores = teacher_forced(network, loader, device, texts)
    card: dict[str, Any] = {
        "split": config.split,
        "num_drives": len(held),
        "teacher_forced": scores,
        "action_use": action_use(network, loader, device, texts, scores),
        "floors": {
            name: {"nats_per_token": value, "bits_per_token": value / math.log(2)}
            for name, value in nats.items()
        },
        "uniform_bits": math.log2(vocab),
        "prompt_steps": prompt,
    }
    if evidence.tokenizer is None or not evidence.drives:
        card["pixels"] = {"skipped": "no drives and tokenizer at hand: tokens only"}
        return card
    judge = PixelJudge(
        evidence.tokenizer.to(device), load_lpips(config.lpips_net, config.lpips_weights).to(device)
    )
    horizon = max(1, round(config.horizon_s * model.spec.fps))
    clips, frames = _clips(evidence, config, prompt + horizon)
    clips, frames = clips.to(device), frames.to(device)
    card |= _pixels(model, judge, clips, frames, prompt, config, out)
    if can_steer(model.action_names):
        card["steering"] = _steering(
            model, judge, clips, frames, prompt, config, evidence.store, out
        )
    return card


def _clips(evidence: Evidence, config: EvalConfig, length: int) -> tuple[TokenClip, Tensor]:
    """Evenly spread clips of tokens, and the pixels that the camera saw."""
    held = evidence.store.drives(config.split)
    windows = TokenWindows(held, length)
    ids = np.unique(np.linspace(0, len(windows) - 1, config.num_clips + 2).astype(int)[1:-1])
    clip = collate([windows[int(i)] for i in ids])
    by_id = {drive.id: drive for drive in evidence.drives}
    spec, frames = evidence.store.spec, []
    for index in ids:
        place = int(np.searchsorted(windows.ends, index, side="right"))
        start = int(index) - (int(windows.ends[place - 1]) if place else 0)
        every = evidence.every
        seen = by_id[held[place].id].frames(start * every, (start + length - 1) * every + 1)
        taken = np.stack(list(islice(seen, 0, None, every)))
        frames.append(spec.preprocessing.fit(taken, spec.image_size))
    return clip, torch.stack(frames)


def _pixels(
    model: WorldModel,
    judge: PixelJudge,
    clips: TokenClip,
    frames: Tensor,
    prompt: int,
    config: EvalConfig,
    out: Path,
) -> dict[str, Any]:
    """Rollouts, one-step-ahead frames, the tokenizer's ceiling and the copy floor."""
    texts = model.texts()
    drawn = (config.sampling, config.decoding)
    futures = imagine(model.network, clips, prompt, *drawn, config.num_futures, texts=texts)
    ahead = one_step_ahead(model.network, clips, prompt, *drawn, texts)
    reconstruction = judge.decode(clips.tokens)
    imagined = judge.decode(futures.tokens)
    target = frames[:, prompt:]
    curves = {
        "autoregressive": judge.compare(imagined[:, 0], target),
        "temporally_teacher_forced": judge.compare(judge.decode(ahead), target),
        "ceiling_tokenizer": judge.compare(reconstruction[:, prompt:], target),
        "floor_copy_last": judge.compare(copy_last(frames, prompt), target),
    }
    past = reconstruction[:, :prompt]
    panels: list[Panel] = [("camera", frames), ("tokenizer", reconstruction)]
    for number in range(config.num_futures):
        panels.append((f"future {number + 1}", torch.cat([past, imagined[:, number]], dim=1)))
    shown = [(caption, pixels[:4]) for caption, pixels in panels]
    write_strip(out, "rollouts", shown, prompt, model.spec.fps)
    return {
        "pixels": {
            "num_clips": len(frames),
            "horizon_steps": target.shape[1],
            "fps": model.spec.fps,
            "mean": {name: mean_of(scores) for name, scores in curves.items()},
            "by_horizon": curves,
        },
        "seconds_per_frame": futures.seconds_per_frame,
    }


def _steering(
    model: WorldModel,
    judge: PixelJudge,
    clips: TokenClip,
    frames: Tensor,
    prompt: int,
    config: EvalConfig,
    store: TokenStore,
    out: Path,
) -> dict[str, Any]:
    """Scene motion under left, straight and right, and how well it tells real turns."""
    names = model.action_names
    amplitude = steering_amplitude(store.drives("train"), names)
    variants = steered_actions(clips.actions, names, prompt, amplitude)
    panels: list[Panel] = []
    result: dict[str, Any] = {"amplitude": amplitude}
    past = judge.decode(clips.tokens[:, :prompt])
    for direction, actions in variants.items():
        steered = replace(clips, actions=actions)
        futures = imagine(
            model.network,
            steered,
            prompt,
            config.sampling,
            config.decoding,
            1,
            direction,
            model.texts(),
        )
        pixels = torch.cat([past, judge.decode(futures.tokens[:, 0])], dim=1)
        panels.append((f"steer {direction}", pixels))
        motion = scene_motion(pixels[:, prompt - 1 :])
        result[direction] = {
            "motion_px_per_frame": motion.median(1).values.mean().item(),
            "standard_error": motion.median(1).values.std().item() / math.sqrt(len(motion)),
        }
    column = next(i for i, name in enumerate(names) if name in amplitude)
    real = scene_motion(frames)
    turns = clips.actions[:, :-1, column]
    pairs = torch.stack([rearrange(real, "c t -> (c t)").cpu(), turns.flatten().cpu()])
    result["calibration"] = {
        "column": names[column],
        "correlation_on_real_frames": torch.corrcoef(pairs)[0, 1].item(),
    }
    write_strip(out, "steering", [(c, p[:4]) for c, p in panels], prompt, model.spec.fps)
    return result
