"""OpenDV-YouTube as its scripts lay it out."""

import json
from pathlib import Path
from typing import Any

from numbered_frames import numbered
from PIL import Image

from drives import video

LIST = [
    {
        "id": 0,
        "videoid": "abcDEF_1-23",
        "youtuber": "J Utah",
        "split": "Train",
        "subset": "Mini",
        "start_discard": 1,
        "end_discard": 2,
        "length": 6,
    },
    {
        "id": 1,
        "videoid": "zzz",
        "youtuber": "Rambles",
        "split": "Val",
        "subset": "Full",
        "start_discard": 90,
        "end_discard": 60,
        "length": 900,
    },
    {"id": 2, "videoid": "gone", "youtuber": "Rambles", "split": "Val", "subset": "Full"},
]


def clip(folder: str, first: int, last: int, cmd: int, blip: str) -> dict[str, Any]:
    names = {"first_frame": f"{first:09d}.jpg", "last_frame": f"{last:09d}.jpg"}
    return {"cmd": cmd, "blip": blip, "folder": folder, **names}


def opendv(root: Path) -> Path:
    """One video of 6 s at 30 fps, frames of another, and nothing of the third."""
    (root / "meta").mkdir(parents=True)
    (root / "meta/OpenDV-YouTube.json").write_text(json.dumps(LIST))
    (root / "videos/J_Utah").mkdir(parents=True)
    video.write_video(root / "videos/J_Utah/abcDEF_1-23.mp4", numbered(180), 30)
    frames = root / "val_images/Rambles/zzz"
    frames.mkdir(parents=True)
    for index, frame in enumerate(numbered(30)):
        Image.fromarray(frame).save(frames / f"{index:09d}.jpg", quality=95)
    train = [
        clip("full_images/J_Utah/abcDEF_1-23", 0, 9, 0, "a road in a city"),
        clip("full_images/J_Utah/abcDEF_1-23", 10, 19, 2, ""),
        clip("full_images/Others/else", 0, 9, 0, "not here"),
    ]
    val = [clip("val_images/Rambles/zzz", 5, 24, 12, "a car at a light")]
    (root / "10hz_YouTube_train_split0.json").write_text(json.dumps(train))
    (root / "10hz_YouTube_val.json").write_text(json.dumps(val))
    return root
