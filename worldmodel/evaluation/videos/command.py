"""The ruler's command line and its files."""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_type_hints

import torch
import yaml

from training.command_line import near
from training.disk.hashing import file_sha256
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.places import writable_folder
from training.disk.plain_json import finite, to_json
from training.errors import BadInput
from training.machine import compute_device, hardware
from training.schemas import built_from, meanings, type_name
from worldmodel.evaluation.videos.clips import VideoClips
from worldmodel.evaluation.videos.config import RulerConfig
from worldmodel.evaluation.videos.folders import VideoFile
from worldmodel.evaluation.videos.page import as_text, write_page
from worldmodel.evaluation.videos.ruler import Subject, measure, open_subject

ROOT = Path(__file__).parents[3]
# Sources that compute scores.
CODE = (
    "worldmodel/evaluation/videos",
    "worldmodel/evaluation/intervals.py",
    "drives/video",
    "drives/clips/preprocessing.py",
    "drives/duplicates/likeness.py",
    "drives/duplicates/pictures.py",
    "tokenizer/metrics.py",
    "tokenizer/losses/lpips.py",
    "tokenizer/compare/fid.py",
    "tokenizer/compare/inception.py",
)
METRICS = "metrics.json"
USAGE = "python -m worldmodel.evaluation.videos real=DIR fake=DIR [setting=value ...]"


def main(arguments: Sequence[str]) -> None:
    """Measure, print a table, and write the result.

    Raises:
        BadInput: a setting, a folder or a file is unusable; nothing was written.
    """
    if {"--help", "-h"} & set(arguments):
        print(help_text())
        return
    settings = read_settings(arguments)
    out, device = writable_folder("out", settings.out), compute_device(settings.device)
    if out.exists() and not _is_ours(out / METRICS):
        raise BadInput(f"out={out}: exists and is no result of ours; choose another folder")
    began, subject = time.monotonic(), open_subject(settings)
    result = finite({**identity(subject), **measure(subject, device)})
    result["run"] = {"where": hardware(), "seconds": round(time.monotonic() - began, 1)}
    sweep_leftovers(out.parent)
    with written_whole(out) as partial:
        partial.mkdir()
        (partial / METRICS).write_text(to_json(result) + "\n")
        shutil.rmtree(out, ignore_errors=True)
    print(as_text(result))
    # Last, because a page that fails must not cost what was measured.
    print(write_page(out, result, subject.clips))


def _is_ours(file: Path) -> bool:
    """Whether this is a ruler's `metrics.json`; evaluations of checkpoints write another."""
    try:
        return "ruler" in json.loads(file.read_text())
    except (OSError, ValueError):
        return False


def read_settings(arguments: Sequence[str]) -> RulerConfig:
    """Settings from `key=value`.

    Raises:
        BadInput: an argument is no setting, or a value has another type or range.
    """
    kinds = {name: type_name(kind) for name, kind in get_type_hints(RulerConfig).items()}
    values: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise BadInput(f"{argument}: write setting=value; {USAGE}")
        if name not in kinds:
            raise BadInput(f"{name}: no such setting; {near(name, list(kinds))}")
        values[name] = _value(text, kinds[name], argument)
    for field in dataclasses.fields(RulerConfig):
        if field.default is field.default_factory and field.name not in values:
            raise BadInput(f"{field.name}: has no default; {USAGE}")
    return built_from(RulerConfig, values)


def _value(text: str, kind: str, argument: str) -> Any:
    if kind.startswith("list"):
        return [part for part in text.strip("[]").split(",") if part]
    if kind.startswith("str") and text != "null":
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"{argument}: cannot be read as {kind}; write setting=value") from error


def help_text() -> str:
    """Usage, and every setting with its default, type and meaning."""
    told, kinds = meanings(RulerConfig), get_type_hints(RulerConfig)
    lines = [USAGE, ""]
    for field in dataclasses.fields(RulerConfig):
        default = field.default if field.default_factory is dataclasses.MISSING else ""
        shown = "" if default is dataclasses.MISSING else "null" if default is None else default
        lines.append(f"{field.name}={shown}")
        lines.append(f"    {type_name(kinds[field.name])}: {told[field.name]}")
    return "\n".join(lines)


def identity(subject: Subject) -> dict[str, Any]:
    """Identity of a measurement: settings, hashes of all files and of the code."""
    folders = {
        name: {
            "folder": str(folder),
            "num_videos": len(videos),
            "num_clips": len(clips),
            "fps": sorted({round(video.rate, 3) for video in videos}),
            "clips_sha256": _clips_hash(clips),
            "videos": [video.plain() for video in videos],
        }
        for name, folder, videos, clips in _sides(subject)
    }
    settings = dataclasses.asdict(subject.settings)
    return {"ruler": {"settings": settings, **code_identity()}, **folders}


def _sides(subject: Subject) -> list[tuple[str, str, list[VideoFile], VideoClips]]:
    s = subject.settings
    return [
        ("real", s.real, subject.real, subject.clips[0]),
        ("fake", s.fake, subject.fake, subject.clips[1]),
    ]


def _clips_hash(clips: VideoClips) -> str:
    return hashlib.sha256("\n".join(clips.ids).encode()).hexdigest()


def code_identity() -> dict[str, str]:
    """Release, and hash of the sources that compute scores."""
    parts = [ROOT / name for name in CODE]
    files = [f for p in parts for f in ([p] if p.is_file() else sorted(p.glob("*.py")))]
    digest = hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()
    try:
        release = version("dashcast")
    except PackageNotFoundError:
        release = "unknown"
    return {"release": release, "code_sha256": digest, "torch": torch.__version__}
