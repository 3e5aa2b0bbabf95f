"""The evaluation card of a world model: scores, floors, ceilings, rollouts, steering."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from drives.drive import SPLITS
from drives.tokens.store import TokenStore
from tokenizer.load import Tokenizer
from tokenizer.losses.lpips import load_lpips
from training.errors import BadInput
from training.loading.loader import fixed_loader
from training.ranges import at_least, one_of, positive
from worldmodel.data import TokenClip, TokenWindows, collate
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import open_decoder
from worldmodel.evaluation.action_use import action_use
from worldmodel.evaluation.clip_decoder import ClipDecoder, leads_of, places_of
from worldmodel.evaluation.evidence import Evidence
from worldmodel.evaluation.floors import floors
from worldmodel.evaluation.pixels import (
    PixelJudge,
    copy_last,
    imagine,
    mean_of,
    num_identical,
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

    Raises:
        BadInput: a number that is not positive.
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

    def __post_init__(self) -> None:
        one_of(SPLITS, split=self.split)
        for name in ("num_windows", "batch_size", "num_clips", "num_futures"):
            at_least(1, **{name: getattr(self, name)})
        if self.prompt_steps is not None:
            at_least(2, prompt_steps=self.prompt_steps)
        positive(horizon_s=self.horizon_s)


def evaluate(
    model: WorldModel, evidence: Evidence, config: EvalConfig, out: Path, device: str
) -> dict[str, Any]:
    """Measure everything that can be measured; strips are written to `out`.

    Raises:
        BadInput: the store is not the model's, the prompt is longer than its context, or prompt
            and horizon are longer than every drive.
    """
    model.check_store(evidence.store, evidence.tokenizer)
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
    horizon = max(1, round(config.horizon_s * model.spec.fps / model.spec.frames_per_step))
    sees, longest = bool(evidence.tokenizer and evidence.drives), max(len(d.tokens) for d in held)
    if sees and longest < prompt + horizon:
        raise BadInput(
            f"horizon_s={config.horizon_s}: {horizon} steps after a prompt of {prompt} are more "
            f"than any drive of the {config.split} split has (longest: {longest}); lower it"
        )
    windows = TokenWindows(held, context)
    loader = fixed_loader(windows, config.num_windows, config.batch_size, collate)
    vocab = model.spec.vocab_size
    nats: dict[str, float] = {}  # nothing to fit them on in a store of test drives alone
    trains = any(d["split"] == "train" for d in evidence.store.manifest["drives"].values())
    if trains:
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
        "sampling": asdict(config.sampling),
    }
    if evidence.tokenizer is None or not evidence.drives:
        card["pixels"] = {"skipped": "no drives and tokenizer at hand: tokens only"}
        return card
    perceptual = load_lpips(config.lpips_net, config.lpips_weights)
    height, width = evidence.store.spec.image_size
    if min(height, width) < perceptual.min_side:
        card["pixels"] = {"skipped": f"frames of {height}x{width} pixels are too small for LPIPS"}
        return card
    judge = PixelJudge(perceptual.to(device))
    tokenizer = evidence.tokenizer.to(device)
    clips, decoder, frames = _clips(evidence, tokenizer, config, prompt, horizon, device)
    card |= _pixels(model, judge, clips, decoder, frames, config, out)
    if trains and can_steer(model.action_names):  # as hard as the train drives do
        card["steering"] = _steering(model, clips, decoder, frames, config, evidence.store, out)
    return card


def _clips(
    evidence: Evidence,
    tokenizer: Tokenizer,
    config: EvalConfig,
    prompt: int,
    horizon: int,
    device: str,
) -> tuple[TokenClip, ClipDecoder, Tensor]:
    """Evenly spread clips of tokens, what decodes them, and the pixels that the camera saw."""
    length, spec, every = prompt + horizon, evidence.store.spec, evidence.every
    windows = TokenWindows(evidence.store.drives(config.split), length)
    ids = np.unique(np.linspace(0, len(windows) - 1, config.num_clips + 2).astype(int)[1:-1])
    clip = collate([windows[int(i)] for i in ids]).to(device)
    decoder = ClipDecoder(tokenizer, clip.tokens, prompt, leads_of(windows, ids.tolist()))
    by_id = {drive.id: drive for drive in evidence.drives}
    frames = []
    for drive, start in places_of(windows, ids.tolist()):
        # Step s ends with frame s * frames_per_step.
        first = (start + decoder.first_step - 1) * spec.frames_per_step + 1
        last = (start + length - 1) * spec.frames_per_step
        seen = by_id[drive].frames(first * every, last * every + 1)
        taken = np.stack(list(islice(seen, 0, None, every)))
        frames.append(spec.preprocessing.fit(taken, spec.image_size))
    return clip, decoder, torch.stack(frames).to(device)


def _pixels(
    model: WorldModel,
    judge: PixelJudge,
    clips: TokenClip,
    decoder: ClipDecoder,
    frames: Tensor,
    config: EvalConfig,
    out: Path,
) -> dict[str, Any]:
    """Rollouts, one-step-ahead frames, the tokenizer's ceiling and the copy floor."""
    texts, prompt = model.texts(), decoder.prompt_steps
    drawn = (config.sampling, config.decoding)
    futures = imagine(model.network, clips, prompt, *drawn, config.num_futures, texts=texts)
    ahead = one_step_ahead(model.network, clips, prompt, *drawn, texts)
    reconstruction = decoder.real()
    imagined = [decoder.after_prompt(future) for future in futures.tokens.unbind(1)]
    seen = decoder.prompt.shape[1]
    target = frames[:, seen:]
    compared = {
        "autoregressive": imagined[0],
        "temporally_teacher_forced": decoder.one_step_ahead(ahead),
        "ceiling_tokenizer": reconstruction[:, seen:],
        "floor_copy_last": copy_last(frames, seen),
    }
    curves = {name: judge.compare(pred, target) for name, pred in compared.items()}
    panels: list[Panel] = [("camera", frames), ("tokenizer", reconstruction)]
    for number, future in enumerate(imagined):
        panels.append((f"future {number + 1}", torch.cat([decoder.prompt, future], dim=1)))
    shown = [(caption, pixels[:4]) for caption, pixels in panels]
    write_strip(out, "rollouts", shown, seen, model.spec.fps)
    return {
        "pixels": {
            "num_clips": len(frames),
            "num_prompt_frames": seen,
            "num_frames": target.shape[1],
            "fps": model.spec.fps,
            "mean": {name: mean_of(scores) for name, scores in curves.items()},
            "by_horizon": curves,
            "num_identical": {n: num_identical(pred, target) for n, pred in compared.items()},
        },
        "seconds_per_frame": futures.seconds_per_step / model.spec.frames_per_step,
    }


def _steering(
    model: WorldModel,
    clips: TokenClip,
    decoder: ClipDecoder,
    frames: Tensor,
    config: EvalConfig,
    store: TokenStore,
    out: Path,
) -> dict[str, Any]:
    """Scene motion under left, straight and right, and how well it tells real turns."""
    names, prompt = model.action_names, decoder.prompt_steps
    amplitude = steering_amplitude(store.drives("train"), names)
    variants = steered_actions(clips.actions, names, prompt, amplitude)
    panels: list[Panel] = []
    result: dict[str, Any] = {"amplitude": amplitude}
    seen = decoder.prompt.shape[1]
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
        pixels = torch.cat([decoder.prompt, decoder.after_prompt(futures.tokens[:, 0])], dim=1)
        panels.append((f"steer {direction}", pixels))
        motion = scene_motion(pixels[:, seen - 1 :]).median(1).values
        error = motion.std().item() / math.sqrt(len(motion)) if len(motion) > 1 else None
        result[direction] = {
            "motion_px_per_frame": motion.mean().item(),
            "standard_error": error,  # one clip has none
        }
    column = next(i for i, name in enumerate(names) if name in amplitude)
    real = scene_motion(frames)
    # The row that explains each frame but the first: of the step before the frame's own.
    later = torch.arange(1, frames.shape[1], device=frames.device)
    turns = clips.actions[:, decoder.first_step - 1 + later // model.spec.frames_per_step, column]
    pairs = torch.stack([rearrange(real, "c t -> (c t)").cpu(), turns.flatten().cpu()])
    result["calibration"] = {
        "column": names[column],
        "correlation_on_real_frames": torch.corrcoef(pairs)[0, 1].item(),
    }
    write_strip(out, "steering", [(c, p[:4]) for c, p in panels], seen, model.spec.fps)
    return result
