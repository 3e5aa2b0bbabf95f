"""The card `control`: does the model listen to the actions?"""

import math
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from drives.clips.motion import scene_motion
from training.pages.films import write_films
from training.pages.html_page import shown
from worldmodel.evaluation.action_use import TRUE, bits_by_window, lagged
from worldmodel.evaluation.attainable.listening import (
    COMMAND,
    listening,
    open_attainable,
    used_bits,
)
from worldmodel.evaluation.cards.config import ControlCard
from worldmodel.evaluation.cards.control_readings import frame_actions, read_back
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.control.commands import commanded, commands_of, imagine_variants
from worldmodel.evaluation.intervals import mean_over_drives
from worldmodel.evaluation.report.strips import Panel, as_arrays, write_strip
from worldmodel.evaluation.report.terminal import interval
from worldmodel.evaluation.steering import steering_amplitude
from worldmodel.evaluation.subject import Chosen, JudgedClips, JudgedModel
from worldmodel.windows import TokenClip

SHOWN = 4  # clips in the video
LAGS = (-2, -1, 1, 2)  # rows, beside 0
LEAST_GAIN = 0.1  # of a lag that is warned of, over what another clip's actions cost
DIRECTIONS = {"left": 1.0, "straight": 0.0, "right": -1.0}


def check(subject: JudgedModel, card: ControlCard) -> None:
    """BadInput where lengths do not fit the data, or `attainable` is of other tokens."""
    subject.lengths(card)
    if subject.attainable:
        open_attainable(subject.attainable, subject.evidence.store)


def measure(subject: JudgedModel, card: ControlCard) -> Result:
    """The cost of wrong actions, and whether imagined pixels obey the commands."""
    chosen = subject.windows(subject.network.config.context_steps, card.num_windows)
    result = Result(chosen.record(), chosen.drives, chosen.names)
    _listening(subject, chosen, result)
    commands = commands_of(subject.train, subject.model.action_names) if subject.train else []
    if commands and not subject.why_no_pixels("alex"):
        prompt, horizon = subject.lengths(card)
        clips = subject.clips(prompt, horizon, card.num_clips)
        names, actions = subject.model.action_names, clips.tokens.actions
        variants = [actions, *(commanded(actions, names, prompt, c) for c in commands)]
        drawn = (subject.sampling, subject.decoding, subject.texts)
        tokens = imagine_variants(subject.network, clips.tokens, variants, prompt, *drawn)
        pixels = [clips.with_prompt(clips.decoder.after_prompt(future)) for future in tokens]
        by_level = dict(zip((c.level for c in commands), pixels[1:], strict=True))
        if ("steering", 0.0) in by_level:
            panels = {way: by_level["steering", level] for way, level in DIRECTIONS.items()}
            steering = _steering(subject, clips, panels)
            result.details["steering"] = steering
            trust = steering["calibration"]
            result.details["lines"] += [
                f"scene motion follows {trust['column']}: correlation "
                f"{shown(trust['correlation_on_real_frames'], '+.2f')} on the camera's frames, "
                f"{shown(trust['correlation_on_reconstructions'], '+.2f')} on reconstructions"
            ]
        found, lines = read_back(subject, clips, commands, pixels, card.reader_steps)
        result.details["inverse_dynamics"] = found
        result.details["lines"] += lines
    return result


def _listening(subject: JudgedModel, chosen: Chosen, result: Result) -> None:
    """Bits of every window under true, wrong and late actions, and their cost."""
    network, spec = subject.network, subject.model.spec
    clips = list(chosen.loader(subject.batch_size))
    asked = (network, clips, subject.device, subject.texts)
    true = subject.scores(chosen).nats.mean(1).numpy() / math.log(2)
    late = {f"lag {lag:+d}": lagged(chosen.windows, chosen.ids, lag) for lag in LAGS}
    bits = {TRUE: true, **bits_by_window(*asked), **bits_by_window(*asked, late)}
    per_frame = spec.tokens_per_step / spec.frames_per_step
    for name, values in bits.items():
        result.score(f"{name} actions", "bits_per_token", values)
        result.score(f"{name} actions", "bits_per_frame", values * per_frame)
        result.score(f"{name} actions", "cost_bits_per_frame", (values - true) * per_frame)
    costs = {name: float(np.mean(values - true)) for name, values in bits.items()}
    by_lag = {lag: costs[f"lag {lag:+d}"] if lag else 0.0 for lag in sorted((0, *LAGS))}
    result.details["action_use"] = {k: v for k, v in costs.items() if k != TRUE and k not in late}
    result.details["cost_by_lag"] = {str(lag): cost for lag, cost in by_lag.items()}
    best = min((0, *LAGS), key=lambda lag: by_lag[lag])  # 0 where all are equal
    result.details["listening"], lines = _share_heard(subject, clips, chosen)
    cost = result.systems[f"lag {best:+d} actions"]["cost_bits_per_frame"] if best else None
    # Of a model that hardly listens, a hair's breadth is significant and says nothing.
    gain, heard = -by_lag[best], abs(costs.get("shuffled", 0.0))
    if cost and (cost.high is None or cost.high < 0) and gain > LEAST_GAIN * heard:
        lines.append(
            f"warning: actions {best:+d} rows later cost less than the true ones; the actions of "
            "these drives are shifted against those of training"
        )
    result.details["lines"] = lines


def _share_heard(
    subject: JudgedModel, clips: list[TokenClip], chosen: Chosen
) -> tuple[dict[str, Any], list[str]]:
    """The share of what actions can tell that the model uses, and what to print."""
    if not subject.attainable:
        why = f"give attainable=FILE, which `{COMMAND}` writes, to know how much there is to hear"
    elif not subject.train:
        why = "the store holds no train drives, whose actions would be the typical ones"
    else:
        hearable = open_attainable(subject.attainable, subject.evidence.store)
        asked = (subject.train, hearable.probe, subject.device, subject.texts)
        used, without = used_bits(subject.network, clips, *asked)
        share = listening(used, chosen.drives, hearable)
        ours, there = mean_over_drives(used, chosen.drives).plain(), hearable.bits.plain()
        found = {"share": share.plain(), "used_bits": ours, "attainable_bits": there}
        line = (
            f"listening {interval(share.plain())}: of {interval(there)} bits of a time step that "
            f"actions can tell, the model uses {interval(ours)}"
        )
        if not hearable.is_something:
            line += "; the data may hold nothing to hear"
        return {**found, "without_actions": without}, [line]
    return {"skipped": why}, [f"listening is not told: {why}"]


def _trust(frames: Tensor, turns: Float[Tensor, "clip step"]) -> float:
    """Correlation of the scene's motion with a column that steers; NaN where either is constant."""
    motion = scene_motion(frames)
    pairs = torch.stack([rearrange(motion, "c t -> (c t)").cpu(), turns.flatten().cpu()])
    return torch.corrcoef(pairs)[0, 1].item()


def _steering(
    subject: JudgedModel, clips: JudgedClips, steered: dict[str, Tensor]
) -> dict[str, Any]:
    """Scene motion under left, straight and right, beside that of real turns."""
    model, frames = subject.model, clips.frames
    names, seen = model.action_names, clips.seen
    amplitude = steering_amplitude(subject.train, names)  # as hard as the train drives do
    panels: list[Panel] = [(f"steer {way}", pixels) for way, pixels in steered.items()]
    result: dict[str, Any] = {"amplitude": amplitude}
    for direction, pixels in steered.items():
        motion = scene_motion(pixels[:, seen - 1 :]).median(1).values
        error = motion.std().item() / math.sqrt(len(motion)) if len(motion) > 1 else None
        result[direction] = {
            "motion_px_per_frame": motion.mean().item(),
            "standard_error": error,  # one clip has none
        }
    column = next(i for i, name in enumerate(names) if name in amplitude)
    turns = frame_actions(subject, clips)[..., column]
    result["calibration"] = {
        "column": names[column],
        "correlation_on_real_frames": _trust(frames, turns),
        "correlation_on_reconstructions": _trust(clips.reconstruction, turns),
    }
    fps, out = model.spec.fps, subject.out
    write_strip(out, "steering", [(c, p[:SHOWN]) for c, p in panels], seen, fps)
    films = {caption: as_arrays(pixels) for caption, pixels in [("camera", frames), *panels]}
    result["films"] = write_films(out / "films_control", films, clips.chosen.names, seen, fps)
    return result
