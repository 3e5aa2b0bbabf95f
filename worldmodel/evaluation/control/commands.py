"""Commands: the same prompts under steering and speeds of the train drives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from drives.actions.derived import LEFT
from drives.tokens.store import TokenDrive
from worldmodel.conditioning.text_encoders import Texts
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.base import Dynamics
from worldmodel.evaluation.pixels import captions_of
from worldmodel.evaluation.steering import steering_amplitude
from worldmodel.windows import TokenClip

SPEED = "speed_mps"
ROWS = 72  # futures in one batch; it changes no future, because numbers are drawn by row
TURNS = (1.0, 0.5, 0.0, -0.5, -1.0)  # of the amplitude; left is positive
SPEEDS = (0.1, 0.5, 0.9)  # quantiles of the train drives


@dataclass(frozen=True)
class Command:
    """Columns that are replaced after the prompt; all others are held.

    Attributes:
        level: "steering" and share of the amplitude, or "speed" and quantile.
        values: by column.
    """

    level: tuple[str, float]
    values: Mapping[str, float]


def commands_of(drives: Sequence[TokenDrive], names: Sequence[str]) -> list[Command]:
    """Five ways to steer and three speeds, as far as the columns allow."""
    amplitude = steering_amplitude(drives, names)
    commands = []
    for level in TURNS if amplitude else ():
        values = {name: level * LEFT[name] * size for name, size in amplitude.items()}
        commands.append(Command(("steering", level), values))
    if SPEED in names:
        speeds = np.concatenate([drive.actions[:, list(names).index(SPEED)] for drive in drives])
        for share, value in zip(SPEEDS, np.quantile(speeds, SPEEDS), strict=True):
            commands.append(Command(("speed", share), {SPEED: float(value)}))
    return commands


def commanded(
    actions: Float[Tensor, "clip time action"],
    names: Sequence[str],
    prompt_steps: int,
    command: Command,
) -> Float[Tensor, "clip time action"]:
    """The actions with a command after the prompt; other columns stay as at the prompt's end."""
    changed = actions.clone()
    changed[:, prompt_steps - 1 :] = actions[:, prompt_steps - 2 : prompt_steps - 1]
    for name, value in command.values.items():
        changed[:, prompt_steps - 1 :, list(names).index(name)] = value
    return changed


def imagine_variants(
    network: Dynamics,
    clips: TokenClip,
    variants: Sequence[Float[Tensor, "clip time action"]],
    prompt_steps: int,
    sampling: Sampling,
    decoding: Mapping[str, Any],
    texts: Texts | None = None,
) -> Int[Tensor, "variant clip horizon height width"]:
    """One future of every clip under each variant of actions, many in one batch."""
    captions, horizon = captions_of(clips, sampling, texts), clips.tokens.shape[1] - prompt_steps
    num, found = len(variants), []
    group = max(1, ROWS // num)
    for first in tqdm(range(0, len(clips.tokens), group), "commands", unit="batch"):
        some = slice(first, first + group)
        prompt = clips.tokens[some, :prompt_steps].repeat(num, 1, 1, 1)
        actions = torch.cat([variant[some] for variant in variants])
        text = captions
        if captions is not None:
            text = replace(captions, index=captions.index[some].repeat(num, 1))
        futures = rollout(
            network, prompt, actions, horizon, sampling, 1, **decoding, captions=text
        )[:, 0]
        found.append(futures.unflatten(0, (num, -1)))
    return torch.cat(found, 1)
