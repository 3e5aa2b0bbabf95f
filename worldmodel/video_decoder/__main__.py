"""Judge a video decoder: python -m worldmodel.video_decoder ckpt=RUN

On recorded clips, at the same tokens: the tokenizer's own decoder, the video decoder; and every
second grid brought back to the full rate by repeating, blending and interpolating. With
world_model=NAME also the tokens that it dreams after prompts of these clips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from omegaconf import DictConfig
from PIL import Image

from drives.clips.preprocessing import to_uint8
from drives.drive import Drive
from drives.folder import common_rate
from drives.sources import DriveSource
from drives.splits.base import of_split
from drives.splits.trained_clips import refuse_trained_clips
from drives.video.rate import same_rate
from tokenizer.losses.lpips import load_lpips
from training.checkpoints.shipped import run_folder
from training.cli import command, plain
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.places import refuse_existing, writable_folder
from training.disk.plain_json import finite, to_json
from training.errors import BadInput
from training.machine import compute_device, hardware
from training.pages.text_table import text_table
from training.pages.wording import counted
from worldmodel.decoding.config import DecodingConfig, sampling_from
from worldmodel.evaluation.evidence import data_source
from worldmodel.load import WorldModel
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.decoder import TokenVideoDecoder
from worldmodel.video_decoder.distances import VideoDistances
from worldmodel.video_decoder.dreams import compare_dreams, dreamt, open_dreamer, prompt_of
from worldmodel.video_decoder.judge import Clips, ScoreRows, VideoJudge, clips_of, compare
from worldmodel.video_decoder.load import PRETRAINED, load_video_decoder

RESULT = "video.json"
PICTURES = {"rows": "video.png", "dreams": "dreams.png"}
SHOWN = 7  # frames in the picture
COLUMNS = (
    "psnr",
    "lpips",
    "flicker",
    "shimmer",
    "jitter",
    "warp",
    "sharpness",
    "fvd",
    "statistics",
    "seconds_per_frame",
)


def judge_video(cfg: DictConfig) -> Path:
    """Write result and pictures into `cfg.out`, print the tables; returns the folder.

    Raises:
        BadInput: as `load_video_decoder`, `clips_of`, `open_dreamer` and `prompt_of`; clips of the
            training; settings of a world model that is not named; `cfg.out` exists.
    """
    device, values = compute_device(cfg.device), plain(cfg)
    _check_dreams(values)
    decoder = load_video_decoder(cfg.ckpt, cfg.tokenizer, VideoDecodingConfig(**values["video"]))
    path, manifest = decoder.to(device).path, decoder.manifest
    assert path is not None
    home = run_folder(path, cfg.paths.runs, PRETRAINED)
    out = writable_folder("out", home / "video" if cfg.out is None else cfg.out)
    refuse_existing("out", out)
    _check_length(decoder, cfg.clip_frames)
    model = None if cfg.world_model is None else open_dreamer(cfg.world_model, decoder)
    prompt = 0 if model is None else prompt_of(model, cfg.prompt_steps, cfg.clip_frames)
    drives = _drives(decoder, values, model)
    clips = clips_of(drives, decoder.opened, cfg.num_clips, cfg.clip_frames)
    perceptual = load_lpips("alex", _path(cfg.lpips_weights)).to(device)
    perceptual.check_size(decoder.spec.image_size)
    real = clips.frames.to(device)

    def judge_of(frames: Clips) -> VideoJudge:
        asked = values["features"], cfg.min_clips, _path(cfg.i3d_weights)
        return VideoJudge(frames, perceptual, VideoDistances(frames, clips.drives, *asked))

    tokens = decoder.tokenizer.encode(real)
    dreams = None
    if model is not None:
        sampling = sampling_from(values["sampling"])
        dreams = dreamt(model, clips, tokens, prompt, sampling, values["decoding"])
    found = {"rows": compare(decoder, judge_of(real), tokens)}
    if dreams is not None:
        found["dreams"] = compare_dreams(decoder, judge_of(real[:, prompt:]), tokens, dreams)
    facts = {
        "checkpoint": str(path),
        "step": manifest.get("step"),
        "split": cfg.split,
        "clips": clips.names,
        "clip_frames": cfg.clip_frames,
        "video": values["video"],
        "hardware": hardware(),
        "rows": found["rows"].rows,
        "distances": found["rows"].distances,
    }
    if model is not None:
        facts["dreams"] = {
            "world_model": str(model.path),
            "prompt_steps": prompt,
            "sampling": values["sampling"],
            "decoding": values["decoding"],
            "rows": found["dreams"].rows,
            "distances": found["dreams"].distances,
        }
    sweep_leftovers(out.parent)
    with written_whole(out) as partial:
        partial.mkdir()
        (partial / RESULT).write_text(to_json(finite(facts)) + "\n")
        for name, rows in found.items():
            picture_of(rows.videos).save(partial / PICTURES[name])
    for rows in found.values():
        print(_table(rows))
    for file in (RESULT, *(PICTURES[name] for name in found)):
        print(f"  {out / file}")
    return out


def _check_length(decoder: TokenVideoDecoder, clip_frames: int) -> None:
    """BadInput for clips that fill no window."""
    window, doubled = decoder.window_frames, 2 in decoder.network.config.spacings
    fewest = 2 * window - 1 if doubled else window
    if clip_frames < fewest:
        part = "every second frame has" if doubled else "frames have"
        raise BadInput(
            f"clip_frames={clip_frames}: {part} to fill the video decoder's window of "
            f"{window}; give {fewest} or more"
        )


def _check_dreams(values: Mapping[str, Any]) -> None:
    """BadInput for settings of a world model where none is named."""
    asked = {
        "prompt_steps": values["prompt_steps"] is not None,
        "sampling": sampling_from(values["sampling"]) != sampling_from({}),
        "decoding": DecodingConfig(**values["decoding"]) != DecodingConfig(),
    }
    given = [name for name, changed in asked.items() if changed]
    if given and values["world_model"] is None:
        raise BadInput(f"{given[0]}: no world model is named; give world_model=RUN")


def _drives(
    decoder: TokenVideoDecoder, values: Mapping[str, Any], model: WorldModel | None
) -> Sequence[Drive]:
    """Drives of the split, with the actions that the world model reads."""
    path, split = decoder.path, values["split"]
    assert path is not None
    source = data_source(decoder.manifest, values["data"]["source"], path)
    if not isinstance(source, DriveSource):
        raise BadInput(f"data.root={source.root}: a video decoder is judged on drives; give some")
    if model is not None and source.actions is None and model.action_names:
        source = replace(source, actions=model.action_names)
    drives = of_split(source.open(needed=split), split, str(source.folder))
    judged = [(decoder.manifest, path)] + ([] if model is None else [(model.manifest, model.path)])
    for manifest, where in judged:
        refuse_trained_clips(manifest, where, split, drives=drives, allow=values["allow_train"])
    rate = common_rate(drives)
    if not same_rate(rate, decoder.spec.fps):
        raise BadInput(
            f"data.root={source.folder}: has {rate:g} frames per second, and the video decoder was "
            f"trained on {decoder.spec.fps:g}; give data.source.fps={decoder.spec.fps:g}"
        )
    return drives


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _table(found: ScoreRows) -> str:
    """Rows of scores; below them, what the distances are of, and why some are missing."""
    columns = [name for name in COLUMNS if name in found.rows[0]]
    cells = [
        [row[found.key], row["name"], *(f"{row[name]:.4g}" for name in columns)]
        for row in found.rows
    ]
    table = text_table([found.key, "by", *(name.replace("_", " ") for name in columns)], cells)
    facts = found.distances
    lines = [
        f"  {kind}: of {facts['num_clips']} clips of {facts['clip_frames']} frames, of "
        f"{counted(facts['num_drives'], 'drive')}; one half of the recorded ones to the other: "
        f"{half['value']:.4g}"
        for kind, half in facts.get("real_other_half", {}).items()
    ]
    lines += [f"  no {kind}: {why}" for kind, why in facts.get("missing", {}).items()]
    return "\n".join([table, *lines])


def picture_of(videos: dict[str, Clips]) -> Image.Image:
    """The first frames of the first clip, a row per video."""
    shown = torch.stack([video[0, :SHOWN] for video in videos.values()])
    return Image.fromarray(rearrange(to_uint8(shown), "n t c h w -> (n h) (t w) c").cpu().numpy())


@command("commands/video_decoder")
def main(cfg: DictConfig) -> None:
    judge_video(cfg)


if __name__ == "__main__":
    main()
