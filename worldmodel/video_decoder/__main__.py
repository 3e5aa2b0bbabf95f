"""Judge a video decoder: python -m worldmodel.video_decoder ckpt=RUN

On recorded clips, at the same tokens: the tokenizer's own decoder, the video decoder; and every
second grid brought back to the full rate by repeating, blending and interpolating.
"""

from pathlib import Path

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
from worldmodel.evaluation.evidence import data_source
from worldmodel.video_decoder.config import VideoDecodingConfig
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
    real, names = clips_of(drives, decoder.opened, cfg.num_clips, cfg.clip_frames)
    weights = Path(cfg.lpips_weights) if cfg.lpips_weights else None
    perceptual = load_lpips("alex", weights)
    perceptual.check_size(decoder.spec.image_size)
    judge = VideoJudge(real.to(device), perceptual.to(device))
    rows, videos = compare(decoder, judge)
    facts = {
        "checkpoint": str(path),
        "step": manifest.get("step"),
        "split": cfg.split,
        "clips": names,
        "clip_frames": cfg.clip_frames,
        "video": values["video"],
        "hardware": hardware(),
        "rows": rows,
    }
    sweep_leftovers(out.parent)
    with written_whole(out) as partial:
        partial.mkdir()
        (partial / RESULT).write_text(to_json(finite(facts)) + "\n")
        picture_of(videos).save(partial / PICTURE)
    cells = [[r["rate"], r["name"], *(f"{r[c]:.4g}" for c in COLUMNS)] for r in rows]
    print(text_table(["rate", "by", *(name.replace("_", " ") for name in COLUMNS)], cells))
    print(f"  {out / RESULT}\n  {out / PICTURE}")
    return out


def picture_of(videos: dict[str, Clips]) -> Image.Image:
    """The first frames of the first clip, a row per video."""
    shown = torch.stack([video[0, :SHOWN] for video in videos.values()])
    return Image.fromarray(rearrange(to_uint8(shown), "n t c h w -> (n h) (t w) c").cpu().numpy())


@command("commands/video_decoder")
def main(cfg: DictConfig) -> None:
    judge_video(cfg)


if __name__ == "__main__":
    main()
