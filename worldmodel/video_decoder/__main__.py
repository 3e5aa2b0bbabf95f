"""Judge a video decoder: python -m worldmodel.video_decoder ckpt=RUN

On recorded clips, at the same tokens: the tokenizer's own decoder, the video decoder; and every
second grid brought back to the full rate by repeating, blending and interpolating.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from omegaconf import DictConfig
from PIL import Image

from drives.clips.preprocessing import to_uint8
from drives.folder import common_rate
from drives.sources import DriveSource
from drives.splits.base import of_split
from drives.splits.trained_clips import refuse_trained_clips
from drives.video.rate import same_rate
from tokenizer.losses.lpips import load_lpips
from training.cli import command, plain
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.places import refuse_existing, writable_folder
from training.disk.plain_json import finite, to_json
from training.errors import BadInput
from training.machine import compute_device, hardware
from training.pages.text_table import text_table
from training.pages.wording import counted
from worldmodel.evaluation.evidence import data_source
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.distances import VideoDistances
from worldmodel.video_decoder.judge import Clips, VideoJudge, clips_of, compare
from worldmodel.video_decoder.load import load_video_decoder

RESULT, PICTURE = "video.json", "video.png"
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
    """Write `video.json` and `video.png` into `cfg.out`, print the table; returns the folder.

    Raises:
        BadInput: as `load_video_decoder` and `clips_of`; clips of the training; `cfg.out` exists.
    """
    device, values = compute_device(cfg.device), plain(cfg)
    how = VideoDecodingConfig(**values["video"])
    decoder = load_video_decoder(cfg.ckpt, cfg.tokenizer, how).to(device)
    path, manifest = decoder.path, decoder.manifest
    assert path is not None
    home = path.parent.parent if path.parent.name == "checkpoints" else path
    out = writable_folder("out", home / "video" if cfg.out is None else cfg.out)
    refuse_existing("out", out)
    window, doubled = decoder.window_frames, 2 in decoder.network.config.spacings
    fewest = 2 * window - 1 if doubled else window
    if cfg.clip_frames < fewest:
        part = "every second frame has" if doubled else "frames have"
        raise BadInput(
            f"clip_frames={cfg.clip_frames}: {part} to fill the video decoder's window of "
            f"{window}; give {fewest} or more"
        )
    source = data_source(manifest, values["data"]["source"], path)
    if not isinstance(source, DriveSource):
        raise BadInput(f"data.root={source.root}: a video decoder is judged on drives; give some")
    drives = of_split(source.open(needed=cfg.split), cfg.split, str(source.folder))
    refuse_trained_clips(manifest, path, cfg.split, drives=drives, allow=cfg.allow_train)
    rate = common_rate(drives)
    if not same_rate(rate, decoder.spec.fps):
        raise BadInput(
            f"data.root={source.folder}: has {rate:g} frames per second, and the video decoder was "
            f"trained on {decoder.spec.fps:g}; give data.source.fps={decoder.spec.fps:g}"
        )
    clips = clips_of(drives, decoder.opened, cfg.num_clips, cfg.clip_frames)
    perceptual = load_lpips("alex", _path(cfg.lpips_weights))
    perceptual.check_size(decoder.spec.image_size)
    real, weights = clips.frames.to(device), _path(cfg.i3d_weights)
    distances = VideoDistances(real, clips.drives, values["features"], cfg.min_clips, weights)
    found = compare(decoder, VideoJudge(real, perceptual.to(device), distances))
    facts = {
        "checkpoint": str(path),
        "step": manifest.get("step"),
        "split": cfg.split,
        "clips": clips.names,
        "clip_frames": cfg.clip_frames,
        "video": values["video"],
        "hardware": hardware(),
        "rows": found.rows,
        "distances": distances.facts(),
    }
    sweep_leftovers(out.parent)
    with written_whole(out) as partial:
        partial.mkdir()
        (partial / RESULT).write_text(to_json(finite(facts)) + "\n")
        picture_of(found.videos).save(partial / PICTURE)
    print(_table(found.rows))
    print("\n".join(_of_distances(facts["distances"])))
    print(f"  {out / RESULT}\n  {out / PICTURE}")
    return out


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of scores; a column that none of them has is left out."""
    columns = [name for name in COLUMNS if name in rows[0]]
    cells = [[r["rate"], r["name"], *(f"{r[name]:.4g}" for name in columns)] for r in rows]
    return text_table(["rate", "by", *(name.replace("_", " ") for name in columns)], cells)


def _of_distances(facts: Mapping[str, Any]) -> list[str]:
    """What the Frechet distances are of, and why some are missing."""
    lines = [
        f"  {kind}: of {facts['num_clips']} clips of {facts['clip_frames']} frames, of "
        f"{counted(facts['num_drives'], 'drive')}; one half of the recorded ones to the other: "
        f"{half['value']:.4g}"
        for kind, half in facts["real_other_half"].items()
    ]
    return lines + [f"  no {kind}: {why}" for kind, why in facts["missing"].items()]


def picture_of(videos: dict[str, Clips]) -> Image.Image:
    """The first frames of the first clip, a row per video."""
    shown = torch.stack([video[0, :SHOWN] for video in videos.values()])
    return Image.fromarray(rearrange(to_uint8(shown), "n t c h w -> (n h) (t w) c").cpu().numpy())


@command("commands/video_decoder")
def main(cfg: DictConfig) -> None:
    judge_video(cfg)


if __name__ == "__main__":
    main()
