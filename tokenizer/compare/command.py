"""Tokenizers side by side: python -m tokenizer.compare runs/a runs/b carracing [setting=value ...]

runs/compare/
    compare.json        every figure, and what it was measured on
    compare.html        one page: table, charts, video; opens from disk
    side_by_side.mp4
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from drives import video
from drives.clips.preprocessing import Preprocessing, to_uint8
from drives.drive import Drive
from drives.sources import DriveSource, source_from_dict, trained_on
from drives.splits.trained_clips import refuse_trained_clips
from tokenizer.compare.fid import PUBLISHED, load_inception, origin
from tokenizer.compare.page import as_text, write_page
from tokenizer.compare.panels import Panel, draw_panels, scale_of
from tokenizer.compare.scores import Clips, Judge, reconstruct, score_tokenizer
from tokenizer.load import Tokenizer, fit_of, load_tokenizer
from tokenizer.losses.lpips import load_lpips
from training.cli import command
from training.command_line import named_in
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.places import writable_folder
from training.disk.plain_json import finite, to_json
from training.errors import BadInput
from training.loading.spread import spread
from training.machine import compute_device, hardware


def compare(
    tokenizers: dict[str, Tokenizer], clips: Clips, judge: Judge
) -> dict[str, dict[str, Any]]:
    """The row of every tokenizer, by name."""
    rows = {}
    with tqdm(total=len(tokenizers) * len(clips.places), unit="clip") as progress:
        for name, tokenizer in tokenizers.items():
            progress.set_description(name)
            scores = score_tokenizer(tokenizer, clips, judge, progress.update)
            rows[name] = {"hash": tokenizer.hash, **scores.as_dict()}
    return rows


def open_tokenizers(names: Sequence[str]) -> dict[str, tuple[str, Tokenizer]]:
    """Source and tokenizer by a unique short name.

    Raises:
        BadInput: no name, a name given twice, or a tokenizer that does not open.
    """
    if not names:
        raise BadInput("name tokenizers: python -m tokenizer.compare runs/a runs/b carracing")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BadInput(f"{twice[0]}: is given twice; name each tokenizer once")
    short = [Path(name).name for name in names]
    labels = short if len(set(short)) == len(names) else list(names)
    return {label: (name, load_tokenizer(name)) for label, name in zip(labels, names, strict=True)}


def common_view(tokenizers: dict[str, Tokenizer]) -> tuple[tuple[int, int], Preprocessing]:
    """(height, width) and crop of the largest tokenizer; all are compared at that size.

    Raises:
        BadInput: shapes or windows differ, so the tokenizers see different parts of a frame.
    """
    specs = {name: tokenizer.spec(1.0) for name, tokenizer in tokenizers.items()}
    first, spec = next(iter(specs.items()))
    (height, width), cut = spec.image_size, spec.preprocessing
    for name, other in specs.items():
        h, w = other.image_size
        if h * width != w * height:
            raise BadInput(
                f"{first} takes frames of {height}x{width}, {name} of {h}x{w}: they see different "
                "parts of a picture; compare tokenizers of one shape"
            )
        its = other.preprocessing
        if (its.window, its.offset) != (cut.window, cut.offset):
            raise BadInput(
                f"{first} cuts {cut.window or 'nothing'} from a frame, {name} "
                f"{its.window or 'nothing'}: they see different parts of a picture; convert "
                "published ones with options.crop=cover"
            )
    largest = max(specs.values(), key=lambda s: s.image_size)
    return largest.image_size, largest.preprocessing


def choose_clips(
    drives: Sequence[Drive],
    num_clips: int,
    num_frames: int,
    size: tuple[int, int],
    preprocessing: Preprocessing | None = None,
) -> Clips:
    """Clips evenly spread over all frames of the drives; none crosses between drives.

    Raises:
        BadInput: no drive is long enough.
    """
    starts = [
        (number, start)
        for number, drive in enumerate(drives)
        for start in range(0, len(drive.actions) - num_frames + 1, num_frames)
    ]
    if not starts:
        longest = max(len(drive.actions) for drive in drives)
        raise BadInput(
            f"clip_frames={num_frames}: the longest drive of the split has {longest} frames; "
            "give fewer"
        )
    chosen = spread(len(starts), num_clips)
    places = [starts[i] for i in chosen]
    return Clips(drives, places, num_frames, size, preprocessing or Preprocessing())


def side_by_side(file: Path, tokenizers: dict[str, Tokenizer], clips: Clips, fps: float) -> None:
    """A column of recorded frames, one per tokenizer beside it; a row per clip."""
    shown: dict[str, list[torch.Tensor]] = {"recorded": [], **{name: [] for name in tokenizers}}
    for frames in clips:
        shown["recorded"].append(clips.fit(frames))
        for name, tokenizer in tokenizers.items():
            fitted = fit_of(tokenizer)(frames).to(tokenizer.device)
            shown[name].append(to_uint8(reconstruct(tokenizer, fitted, clips.size)[1]).cpu())
    shortest = min(len(row) for rows in shown.values() for row in rows)
    panels: list[Panel] = [
        (name, torch.stack([row[:shortest] for row in rows])) for name, rows in shown.items()
    ]
    video.write_video(file, draw_panels(panels, scale_of(panels, 192)), fps, crf=18)


def choose_source(tokenizers: dict[str, Tokenizer], root: str | None, cache: str) -> DriveSource:
    """The requested drives, or the drives that the tokenizers were trained on.

    Raises:
        BadInput: no drives are requested and the tokenizers were trained on different ones.
    """
    if root is not None:
        return DriveSource(root, cache)
    found: dict[str, DriveSource] = {}
    for name, tokenizer in tokenizers.items():
        values = trained_on(tokenizer.manifest, name)
        source = source_from_dict(values) if values else None
        if isinstance(source, DriveSource):
            found[name] = replace(source, cache=cache)
    folders = {str(source.folder): name for name, source in found.items()}
    if len(folders) > 1:
        (a, name_a), (b, name_b), *_ = folders.items()
        raise BadInput(
            f"{name_a} was trained on {a}, {name_b} on {b}; say on which drives to compare them: "
            "data.root=FOLDER"
        )
    return next(iter(found.values()), DriveSource(cache=cache))


@command("commands/compare")
def _compare(cfg: DictConfig) -> None:
    out, device = writable_folder("out", cfg.out), compute_device(cfg.device)
    if out.exists() and not (out / "compare.json").exists():
        raise BadInput(f"out={out}: exists and is no comparison of ours; choose another folder")
    opened = open_tokenizers([str(name) for name in cfg.tokenizers or ()])
    tokenizers = {label: tokenizer for label, (_, tokenizer) in opened.items()}
    view = common_view(tokenizers)
    judge, rfid = make_judge(cfg, device)
    source = choose_source(tokenizers, cfg.data.root, cfg.paths.data)
    drives = [drive for drive in source.open() if drive.split == cfg.split]
    if not drives:
        raise BadInput(f"{source.folder}: no drive is in the {cfg.split} split; choose another")
    for path, tokenizer in opened.values():
        refuse_trained_clips(
            tokenizer.manifest, Path(path), cfg.split, drives=drives, allow=cfg.allow_train
        )
    clips = choose_clips(drives, cfg.num_clips, cfg.clip_frames, *view)
    rows = finite(compare(tokenizers, clips, judge))
    result = {
        "tokenizers": {k: {"path": opened[k][0], **row} for k, row in rows.items()},
        "data": {"drives": str(source.folder), "split": cfg.split, **describe(clips)},
        "rfid": rfid,
        "where": hardware(),
    }
    shortest = min(len(drives[drive].actions) for drive, _ in clips.places)
    shown = max(1, min(round(cfg.video_s * drives[0].fps), shortest))
    write(out, result, tokenizers, choose_clips(drives, cfg.video_clips, shown, *view))
    print(f"\n{as_text(rows)}\n\nrFID: {rfid}\n{out / 'compare.html'}")


def describe(clips: Clips) -> dict[str, Any]:
    """The clips, for readers of the comparison."""
    return {
        "num_drives": len({drive for drive, _ in clips.places}),
        "num_clips": len(clips.places),
        "num_frames": len(clips.places) * clips.num_frames,
        "size": list(clips.size),
        "fps": clips.drives[0].fps,
    }


def write(
    out: Path, result: dict[str, Any], tokenizers: dict[str, Tokenizer], shown: Clips
) -> None:
    """Write JSON, page and video as one folder, atomically; replaces an older one."""
    sweep_leftovers(out.parent)
    with written_whole(out) as partial:
        partial.mkdir()
        side_by_side(partial / "side_by_side.mp4", tokenizers, shown, result["data"]["fps"])
        (partial / "compare.json").write_text(to_json(result) + "\n")
        write_page(partial, result)
        shutil.rmtree(out, ignore_errors=True)


def make_judge(cfg: DictConfig, device: str) -> tuple[Judge, str]:
    """The judge, and the weights of the rFID or why there is none."""
    file = Path(cfg.lpips_weights) if cfg.lpips_weights else None
    perceptual = load_lpips(cfg.lpips_net, file).to(device)
    if cfg.inception is None:
        return Judge(perceptual, device), f"not measured, it needs inception=FILE ({PUBLISHED})"
    file = Path(cfg.inception)
    return Judge(perceptual, device, load_inception(file).to(device)), origin(file)


def main() -> None:
    sys.argv[1:] = named_in(sys.argv[1:], "tokenizers")
    _compare()


if __name__ == "__main__":
    main()
