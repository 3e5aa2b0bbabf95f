"""Part of the card `control`: actions that an inverse-dynamics model reads from pixels."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tokenizer.encode import average_rows
from training.errors import BadInput
from training.pages.html_page import shown
from worldmodel.evaluation.control.agreement import agreement, correlation_by_lag, curve
from worldmodel.evaluation.control.commands import Command
from worldmodel.evaluation.control.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from worldmodel.evaluation.control.training import Recording, open_inverse_dynamics
from worldmodel.evaluation.subject import JudgedClips, JudgedModel

IMAGINED = "imagined, true actions"
LAGS = (-2, -1, 0, 1, 2)  # rows
READABLE_FROM = 0.5  # correlation on real and reconstructed frames; below, a reading says nothing


def read_back(
    subject: JudgedModel,
    clips: JudgedClips,
    commands: Sequence[Command],
    pixels: Sequence[Tensor],
    steps: int,
) -> tuple[dict[str, Any], list[str]]:
    """Read the actions of real, reconstructed and imagined clips.

    Args:
        pixels: prompt and future of every clip, under its own actions and every command.
        steps: training steps of the inverse-dynamics model.

    Returns:
        The entry of metrics.json, and lines for the terminal: of imagined clips only for columns
        that can be read from real and reconstructed ones.
    """
    try:
        reader = reader_of(subject, steps)
    except BadInput as error:
        return {"skipped": str(error)}, []
    columns = [list(subject.model.action_names).index(name) for name in reader.names]
    told = frame_actions(subject, clips)[..., columns].double().cpu().numpy()
    camera, seen = _read(reader, clips.frames), clips.seen
    futures = [_read(reader, future[:, seen - 1 :]) for future in pixels]
    found: dict[str, Any] = {"columns": list(reader.names), "hash": reader.hash}
    sources = {
        "camera": (camera, told),
        "reconstruction": (_read(reader, clips.reconstruction), told),
        IMAGINED: (futures[0], told[:, seen - 1 :]),
    }
    for source, (read, actions) in sources.items():
        found[source] = {
            name: agreement(read[..., i], actions[..., i], clips.drives).plain()
            for i, name in enumerate(reader.names)
        }
    found["trust"] = {name: column_trust(found, name) for name in reader.names}
    readable = {name for name in reader.names if found["trust"][name]["readable"]}
    lines = [
        _line(source, name, found[source][name])
        for source in sources
        for name in reader.names
        if source != IMAGINED or name in readable
    ]
    found["lag"] = _lags(reader, camera, told)
    found["commands"] = {}
    for i, name in enumerate(reader.names):
        asked = [k for k, command in enumerate(commands) if name in command.values]
        if not asked:
            continue
        values = [commands[k].values[name] for k in asked]
        obtained = np.stack([futures[k + 1][..., i].mean(1) for k in asked])
        wanted = np.broadcast_to(np.array(values)[:, None], obtained.shape)
        fit = agreement(obtained.T, wanted.T, clips.drives).plain()
        found["commands"][name] = {**fit, "curve": curve(obtained, values, clips.drives)}
        if name in readable:
            lines.append(_line("imagined, commands", name, fit))
    lines += [_untold(name, found["trust"][name]) for name in reader.names if name not in readable]
    return found, lines + _warnings(found["lag"])


def column_trust(found: dict[str, Any], name: str) -> dict[str, Any]:
    """How far readings of a column go with its actions where these are known."""
    seen = {s: found[s][name]["correlation"]["value"] for s in ("camera", "reconstruction")}
    readable = all(value is not None and value >= READABLE_FROM for value in seen.values())
    return {**seen, "readable": readable}


def _untold(name: str, trust: dict[str, Any]) -> str:
    values = [shown(trust[source], "+.2f") for source in ("camera", "reconstruction")]
    return (
        f"{name} cannot be read here: correlation {values[0]} on the camera's frames, {values[1]} "
        "on reconstructions; of imagined frames it is not told"
    )


def frame_actions(subject: JudgedModel, clips: JudgedClips) -> Float[Tensor, "clip step action"]:
    """The action that leads to each frame of the clips but the first."""
    later = torch.arange(1, clips.frames.shape[1], device=clips.frames.device)
    # Row t - 1 explains frame t.
    rows = clips.decoder.first_step - 1 + later // subject.model.spec.frames_per_step
    return clips.tokens.actions[:, rows]


def reader_of(subject: JudgedModel, steps: int) -> InverseDynamics:
    """The inverse-dynamics model of the train drives, trained on first use.

    Kept beside the data by the hash of the tokens, because other pixels have other tokens.

    Raises:
        BadInput: no drive of the train split is at hand, or as `open_inverse_dynamics`.
    """
    store, names = subject.evidence.store, subject.model.action_names
    if not any(drive.split == "train" for drive in subject.evidence.drives):
        raise BadInput(f"{store.root}: no train drives are at hand to learn inverse dynamics from")
    folder = store.root.parent.parent / "inverse_dynamics"
    config = InverseDynamicsConfig(steps=steps)
    recordings = lambda: _recordings(subject, config.max_frames)  # noqa: E731
    return open_inverse_dynamics(folder, store.hash, names, recordings, config)


def _recordings(subject: JudgedModel, max_frames: int) -> Iterator[Recording]:
    """Frames and actions of the train drives as the tokenizer sees them."""
    evidence, names = subject.evidence, subject.model.action_names
    spec, every = evidence.store.spec, evidence.every
    drives = [drive for drive in evidence.drives if drive.split == "train"]
    most = max(2, max_frames // len(drives))
    for drive in drives[:: max(1, 2 * len(drives) // max_frames)]:
        actions = average_rows(drive.select_actions(names), every)
        first = max(0, (len(actions) - most) // 2)
        stop = min(len(actions), first + most)
        seen = drive.frames(first * every, (stop - 1) * every + 1)
        frames = spec.preprocessing.fit(
            np.stack(list(islice(seen, 0, None, every))), spec.image_size
        )
        yield frames.permute(0, 2, 3, 1).contiguous().numpy(), actions[first:stop]


def _read(reader: InverseDynamics, frames: Tensor) -> Float[np.ndarray, "clip step column"]:
    return reader.read(frames.permute(0, 1, 3, 4, 2).cpu().numpy())


def _lags(
    reader: InverseDynamics, camera: np.ndarray, told: np.ndarray
) -> dict[str, dict[str, float]]:
    """By column, correlation of the camera's readings with actions some rows later."""
    if camera.shape[1] <= 2 * max(LAGS):
        return {}
    found = {}
    for i, name in enumerate(reader.names):
        by_lag = correlation_by_lag(camera[..., i], told[..., i], LAGS)
        found[name] = {str(lag): value for lag, value in by_lag.items()}
    return found


def _warnings(lags: dict[str, dict[str, float]]) -> list[str]:
    """Columns whose actions fit other frames better than the next one."""
    lines = []
    for name, by_lag in lags.items():
        best = max(by_lag, key=lambda lag: np.nan_to_num(by_lag[lag], nan=-1.0))
        if best != "0" and by_lag[best] > by_lag["0"] + 0.02:
            lines.append(
                f"warning: {name} fits the camera's motion best {best} rows later "
                f"({by_lag[best]:.2f}; {by_lag['0']:.2f} as recorded): rows may be shifted"
            )
    return lines


def _line(source: str, name: str, fit: dict[str, Any]) -> str:
    values = "  ".join(f"{key} {shown(fit[key]['value'], '.3f')}" for key in fit)
    return f"{name} read from {source}: {values}"
