"""Writes futures of a checkpoint: python -m worldmodel.rollout ckpt=RUN out=FOLDER

The output is a token store with one drive per future: the prompt, then the future. With the
tokenizer of the tokens, the command also writes a GIF, an MP4 and a still; with `drives=true` also
every future as a drive, in OUT/drives, which `python -m drives.exporters` takes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from omegaconf import DictConfig
from torch import Tensor

from drives.captions import cut_captions
from drives.tokens.spec import TokenSpec, frame_shape
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.writing import write_drive
from training.cli import command, plain
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.places import refuse_existing, writable_folder
from training.errors import BadInput
from training.machine import compute_device
from worldmodel.commands import PromptsConfig
from worldmodel.decoding import Sampling
from worldmodel.decoding.config import sampling_from
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.evaluation.clip_decoder import ClipDecoder, leads_of
from worldmodel.evaluation.evidence import Evidence, evidence_of
from worldmodel.evaluation.pixels import captions_of
from worldmodel.evaluation.provenance.trained_clips import refuse_trained
from worldmodel.evaluation.report.strips import Panel, write_strip
from worldmodel.load import WorldModel, load_world_model
from worldmodel.windows import TokenClip, TokenWindows, collate

SHOWN = 4  # clips in the pictures


@dataclass(frozen=True, kw_only=True)
class RolloutConfig(PromptsConfig):
    """Settings of the rollouts.

    Attributes:
        sampling: how tokens are sampled.
        decoding: method and options of `open_decoder`.
    """

    sampling: Sampling = field(default_factory=Sampling)
    decoding: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollouts:
    """Prompts and their futures.

    Attributes:
        clips: tokens of the prompts, and of the real frames after them if the drives are long
            enough; actions and captions of prompt and horizon.
        windows, ids: origin of the clips.
        prompt_steps: time steps of a prompt.
        futures: sampled tokens after the prompts.
    """

    clips: TokenClip
    windows: TokenWindows
    ids: list[int]
    prompt_steps: int
    futures: Int[Tensor, "clip future horizon height width"]


def imagine(
    model: WorldModel, store: TokenStore, config: RolloutConfig, device: str, least_steps: int = 0
) -> Rollouts:
    """Sample futures of prompts, which are spread evenly over the drives of a split.

    A model with actions follows the actions of the drive, so the drive must be as long as prompt
    and horizon. Any other model needs only the prompt.

    Args:
        least_steps: prompt and horizon have at least as many steps.

    Raises:
        BadInput: drives are too short, the prompt exceeds the context, or the model does not
            support the decoding method.
    """
    network, spec = model.network.to(device), store.spec
    context = network.config.context_steps
    prompt = config.prompt_steps or network.state_steps or max(1, context // 2)
    if prompt > context:
        raise BadInput(f"prompt_steps={prompt}: the context of {model.path} is {context} steps")
    horizon = max(1, round(config.horizon_s * spec.fps / spec.frames_per_step))
    if prompt + horizon < least_steps:
        raise BadInput(
            f"horizon_s={config.horizon_s:g}: {prompt} steps of prompt and {horizon} more are less "
            f"than the {least_steps} that the video decoder reads at once; give a longer one"
        )
    open_decoder(network, config.sampling, **config.decoding)  # refuses before anything is read
    drives = store.drives(config.split)
    longest = max(len(drive.tokens) for drive in drives)
    follows = network.conditioned or network.reads_text or longest >= prompt + horizon
    if not follows and prompt < least_steps:
        raise BadInput(
            f"split={config.split}: no drive has the {prompt + horizon} steps of prompt and "
            f"horizon, and the video decoder reads {least_steps} at once, more than the {prompt} "
            "of the prompt; give a shorter horizon_s or a longer prompt"
        )
    windows = TokenWindows(drives, prompt + horizon if follows else prompt)
    ids = np.unique(np.linspace(0, len(windows) - 1, config.num_clips + 2).astype(int)[1:-1])
    clips = collate([windows[int(i)] for i in ids]).to(device)
    captions = captions_of(clips, config.sampling, model.texts())
    futures = rollout(
        network,
        clips.tokens[:, :prompt],
        clips.actions if network.conditioned else None,
        horizon,
        config.sampling,
        config.num_futures,
        captions=captions,
        **config.decoding,
    )
    return Rollouts(clips, windows, ids.tolist(), prompt, futures)


def write_tokens(out: Path, made: Rollouts, store: TokenStore, notes: dict[str, Any]) -> None:
    """Write a token store with one drive `clip-N-future-M` per future, the prompt included."""
    acted = len(made.clips.actions[0]) > made.prompt_steps  # actions cover the horizon
    names = store.action_names if acted else ()
    writer = TokenStoreWriter(out, store.spec, names)
    shape = (-1, *frame_shape(store.spec))
    for number, futures in enumerate(made.futures):
        prompt = made.clips.tokens[number, : made.prompt_steps]
        begins = made.windows.describe(made.ids[number])
        about = {"from": {"drive": begins["drive"], "step": begins["steps"][0]}}
        for which, future in enumerate(futures):
            tokens = torch.cat([prompt, future]).cpu().numpy().reshape(shape)
            actions = made.clips.actions[number].cpu().numpy()
            if not acted:
                actions = np.zeros((len(tokens), 0), np.float32)
            name = f"clip-{number:02d}-future-{which:02d}"
            writer.write(name, "test", tokens, actions, {**about, **notes})


def write_pictures(
    out: Path,
    made: Rollouts,
    evidence: Evidence,
    device: str,
) -> list[Path]:
    """Write the first clips side by side: decoded real tokens, if there are any, then futures.

    Raises:
        BadInput: a token is not in the tokenizer's vocabulary.
    """
    assert evidence.tokenizer is not None
    tokens = made.clips.tokens[:SHOWN]
    leads = leads_of(made.windows, made.ids[:SHOWN])
    tokenizer, video = evidence.tokenizer.to(device), evidence.video
    decoder = ClipDecoder(tokenizer, tokens, made.prompt_steps, leads, video)
    panels: list[Panel] = []
    if tokens.shape[1] > made.prompt_steps:
        panels.append(("tokenizer" if video is None else "real tokens", decoder.real().cpu()))
    for number, future in enumerate(made.futures[:SHOWN].unbind(1), 1):
        frames = torch.cat([decoder.prompt, decoder.after_prompt(future)], dim=1)
        panels.append((f"future {number}", frames.cpu()))
    shown = decoder.prompt.shape[1]
    return write_strip(out, "rollouts", panels, shown, evidence.store.spec.fps)


def write_drives(
    out: Path,
    made: Rollouts,
    evidence: Evidence,
    notes: dict[str, Any],
) -> None:
    """Write a drive `clip-N-future-M` per future: decoded frames, the actions, the captions.

    Raises:
        BadInput: a token is not in the tokenizer's vocabulary.
    """
    assert evidence.tokenizer is not None
    spec, names, video = evidence.store.spec, evidence.store.action_names, evidence.video
    for number, futures in enumerate(made.futures):
        here = slice(number, number + 1)
        leads = leads_of(made.windows, made.ids[here])
        tokens = made.clips.tokens[here]
        decoder = ClipDecoder(evidence.tokenizer, tokens, made.prompt_steps, leads, video, number)
        num_steps = made.prompt_steps + futures.shape[1]
        begins = made.windows.describe(made.ids[number])
        meta = {
            "fps": spec.fps,
            "split": "test",
            "source": f"rollout of {notes['checkpoint']}",
            "licence": "unknown",
            "from": {"drive": begins["drive"], "step": begins["steps"][0]},
            "prompt_frames": decoder.prompt.shape[1],
            "captions": _captions_of_frames(made, number, num_steps, decoder.first_step, spec),
        }
        for which, future in enumerate(futures):
            after = decoder.after_prompt(future[None])
            frames = torch.cat([decoder.prompt, after], dim=1)[0].permute(0, 2, 3, 1).cpu().numpy()
            # A step's row is that of the frames from its last one on.
            steps = (np.arange(len(frames)) + decoder.first_step) // spec.frames_per_step
            actions = made.clips.actions[number].cpu().numpy()
            acted = len(actions) >= num_steps
            rows = actions[steps] if acted else np.zeros((len(frames), 0), np.float32)
            name = f"clip-{number:02d}-future-{which:02d}"
            write_drive(out / name, frames, rows, names if acted else (), meta | notes)


def _captions_of_frames(
    made: Rollouts, number: int, num_steps: int, first_step: int, spec: TokenSpec
) -> list[dict[str, Any]]:
    """The captions of a clip, counted in the frames that are decoded."""
    begins = made.windows.describe(made.ids[number])
    start = begins["steps"][0]
    drive = next(drive for drive in made.windows.drives if drive.id == begins["drive"])
    found = []
    for caption in cut_captions(drive.captions, start, start + num_steps):
        first, stop = (
            max(0, step - first_step) * spec.frames_per_step
            for step in (caption.start, caption.stop)
        )
        found += [{"text": caption.text, "start": first, "stop": stop}] if first < stop else []
    return found


def write(cfg: DictConfig) -> None:
    """Run the command; the folder is written completely or not at all.

    Raises:
        BadInput: as `evidence_of`, `refuse_trained` and `imagine`, or `cfg.out` exists.
    """
    values, out, device = plain(cfg), writable_folder("out", cfg.out), compute_device(cfg.device)
    refuse_existing("out", out)
    fields = RolloutConfig.__dataclass_fields__
    own = {k: v for k, v in values.items() if k in fields and k != "sampling"}
    config = RolloutConfig(**own, sampling=sampling_from(values["sampling"]))
    model = load_world_model(cfg.ckpt)
    evidence = evidence_of(model, values["data"]["source"], cfg.tokenizer)
    refuse_trained([model], evidence, config.split, cfg.allow_train)
    if cfg.drives and evidence.tokenizer is None:
        raise BadInput(
            "drives=true: frames need the tokenizer; give tokenizer=FOLDER (docs/gpt.md)"
        )
    evidence = evidence.decoded_by(cfg.video_decoder, values["video"], device)
    least_steps = 0 if evidence.video is None else evidence.video.window_frames
    made = imagine(model, evidence.store, config, device, least_steps)
    sweep_leftovers(out.parent)
    with written_whole(out) as partial:
        partial.mkdir()
        facts = {"checkpoint": str(model.path), "prompt_steps": made.prompt_steps}
        write_tokens(partial, made, evidence.store, {**facts, "sampling": asdict(config.sampling)})
        pictures = (
            [] if evidence.tokenizer is None else write_pictures(partial, made, evidence, device)
        )
        if cfg.drives:
            write_drives(partial / "drives", made, evidence, facts)
    count, futures, steps = made.futures.shape[:3]
    print(
        f"{out}: {count} x {futures} futures of {steps} steps after {made.prompt_steps} real ones"
    )
    for picture in pictures:
        print(f"  {out / picture.name}")
    if cfg.drives:
        print(
            f"  {out / 'drives'}: {count * futures} drives; `python -m drives.exporters` takes them"
        )
    if not pictures:
        print(
            f"  no pictures: the tokenizer of these tokens ({evidence.store.spec.tokenizer[:12]}) "
            "is not at hand; give tokenizer=FOLDER (docs/gpt.md)"
        )


@command("commands/rollout")
def main(cfg: DictConfig) -> None:
    write(cfg)


if __name__ == "__main__":
    main()
