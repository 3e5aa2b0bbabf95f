"""The card `control`: does the model listen to the actions?"""

import math
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange

from training.pages.films import write_films
from worldmodel.evaluation.action_use import action_use
from worldmodel.evaluation.cards.config import ControlCard
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.pixels import imagine
from worldmodel.evaluation.report.strips import Panel, as_arrays, write_strip
from worldmodel.evaluation.steering import (
    can_steer,
    scene_motion,
    steered_actions,
    steering_amplitude,
)
from worldmodel.evaluation.subject import JudgedClips, JudgedModel

SHOWN = 4  # clips in the video


def measure(subject: JudgedModel, card: ControlCard) -> Result:
    """What wrong actions cost in bits per token, and how the scene moves under the wheel."""
    network = subject.network
    chosen = subject.windows(network.config.context_steps, card.num_windows)
    result = Result(chosen.record(), chosen.drives, chosen.names)
    batches = chosen.loader(subject.batch_size)
    result.details["action_use"] = action_use(network, batches, subject.device, subject.texts)
    names = subject.model.action_names
    if subject.train and can_steer(names) and not subject.why_no_pixels("alex"):
        prompt, horizon = subject.lengths(card)
        clips = subject.clips(prompt, horizon, card.num_clips)
        result.details["steering"] = _steering(subject, clips)
    return result


def _steering(subject: JudgedModel, clips: JudgedClips) -> dict[str, Any]:
    """Scene motion under left, straight and right, and how well it tells real turns."""
    model, decoder, frames = subject.model, clips.decoder, clips.frames
    names, prompt, seen = model.action_names, clips.prompt_steps, clips.seen
    amplitude = steering_amplitude(subject.train, names)  # as hard as the train drives do
    variants = steered_actions(clips.tokens.actions, names, prompt, amplitude)
    panels: list[Panel] = []
    result: dict[str, Any] = {"amplitude": amplitude}
    drawn = (subject.sampling, subject.decoding)
    for direction, actions in variants.items():
        steered = replace(clips.tokens, actions=actions)
        futures = imagine(model.network, steered, prompt, *drawn, 1, direction, texts=subject.texts)
        pixels = clips.with_prompt(decoder.after_prompt(futures.tokens[:, 0]))
        panels.append((f"steer {direction}", pixels))
        motion = scene_motion(pixels[:, seen - 1 :]).median(1).values
        error = motion.std().item() / math.sqrt(len(motion)) if len(motion) > 1 else None
        result[direction] = {
            "motion_px_per_frame": motion.mean().item(),
            "standard_error": error,  # one clip has none
        }
    column = next(i for i, name in enumerate(names) if name in amplitude)
    real = scene_motion(frames)
    # The row that explains each frame but the first: of the time step before the frame's own.
    later = torch.arange(1, frames.shape[1], device=frames.device)
    rows = decoder.first_step - 1 + later // model.spec.frames_per_step
    turns = clips.tokens.actions[:, rows, column]
    pairs = torch.stack([rearrange(real, "c t -> (c t)").cpu(), turns.flatten().cpu()])
    result["calibration"] = {
        "column": names[column],
        "correlation_on_real_frames": torch.corrcoef(pairs)[0, 1].item(),
    }
    fps, out = model.spec.fps, subject.out
    write_strip(out, "steering", [(c, p[:SHOWN]) for c, p in panels], seen, fps)
    films = {caption: as_arrays(pixels) for caption, pixels in [("camera", frames), *panels]}
    result["films"] = write_films(out / "films_control", films, clips.chosen.names, seen, fps)
    return result
