"""Writes a dream that opens from disk: python -m worldmodel.drive ckpt=RUN export=FILE"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from training.disk.leftovers import written_whole
from training.disk.places import refuse_existing, writable_file
from training.errors import BadInput
from worldmodel.codec.exact.decoder import PortableDecoder
from worldmodel.drive.export.networks import (
    check_network,
    check_tokenizer,
    of_gpt,
    of_tokenizer,
    tables,
)
from worldmodel.drive.export.tensors import Tensors
from worldmodel.drive.session import DriveSession
from worldmodel.env.controls import SPEED, STEERING, Controls
from worldmodel.env.dream import Dream
from worldmodel.env.starts import Start
from worldmodel.env.world import DreamWorld

HERE = Path(__file__).parent
PAGE = HERE.parent / "page.html"
SOURCES = ("kernel.js", "gpt.js", "frames.js", "dream.js")  # of the worker, in this order
MOST_BYTES = 20_000_000
FOLLOWED_S = 10.0  # seconds of the recording that a clip keeps
VOCABULARY = 2**16  # its tokens are two bytes each
PLACE = '<script>\n"use strict";'  # of the page; what a file holds goes before it
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; worker-src blob:; "
    "script-src 'unsafe-inline' 'wasm-unsafe-eval'"
)


def export_place(file: str) -> Path:
    """The place of a file; BadInput where it exists or cannot be written."""
    place = writable_file("export", file)
    refuse_existing("export", place)
    return place


def check_export(world: DreamWorld) -> None:
    """BadInput for a model that no file can hold, before its numbers are written."""
    check_network(world.model.network)
    check_tokenizer(world.tokenizer)
    if world.model.spec.vocab_size > VOCABULARY:
        raise BadInput(f"export: {world.model.spec.vocab_size} tokens; {VOCABULARY} at most")
    size = world.model.network.num_parameters() * 4 / 3  # a byte each, in base64
    if size > MOST_BYTES:
        raise BadInput(_too_large(size))


def _too_large(size: float) -> str:
    return (
        f"export: the file would have {size / 1e6:.1f} MB, and a page has {MOST_BYTES / 1e6:.0f} "
        "at most; export a smaller model"
    )


def write_export(session: DriveSession, file: Path) -> int:
    """Write the dream of a session, whose decoder is a `PortableDecoder`; the number of bytes.

    Raises:
        BadInput: the file would be larger than `MOST_BYTES`.
    """
    tensors = Tensors()
    known = described(session, tensors)
    parts = {
        "dream-known": ("application/json", json.dumps(known).replace("<", "\\u003c")),
        "dream-numbers": ("text/plain", base64.b64encode(tensors.content).decode()),
        "dream-kernel": (
            "text/plain",
            base64.b64encode((HERE / "kernel.wasm").read_bytes()).decode(),
        ),
        "dream-worker": ("text/plain", "\n".join((HERE / name).read_text() for name in SOURCES)),
    }
    held = "".join(
        f'<script id="{n}" type="{t}">{text}</script>\n' for n, (t, text) in parts.items()
    )
    page = PAGE.read_text()
    assert page.count(PLACE) == 1
    page = page.replace(PLACE, held + PLACE)
    page = page.replace(
        '<meta charset="utf-8">',
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
    )
    content = page.encode()
    if len(content) > MOST_BYTES:
        raise BadInput(_too_large(len(content)))
    with written_whole(file) as partial:
        partial.write_bytes(content)
    return len(content)


def described(session: DriveSession, tensors: Tensors) -> dict[str, Any]:
    """What the worker knows: networks, controls, clips, and how to sample."""
    world, dream = session.world, session.dream
    assert isinstance(dream.decoder, PortableDecoder)
    assert world.tokenizer is not None
    about = session.describe()
    clips = [_clip(world.starts[n], world, tensors) for n in session.clips]
    about["clips"] = [{"number": n, "name": clip["name"]} for n, clip in enumerate(clips)]
    about |= {"forms": [], "num_clips": len(clips)}
    for state in session.start(session.clips[0]):
        about.pop(state, None)
    return {
        "about": about,
        "tables": tables(tensors),
        "gpt": of_gpt(dream.decoder.model, tensors),
        "frames": of_tokenizer(world.tokenizer, tensors),
        "controls": _controls(world.controls),
        "sampling": _sampling(dream),
        "slide": dream.decoder.slide_steps,
        "clips": clips,
    }


def _sampling(dream: Dream) -> dict[str, Any]:
    sampling = dream.sampling
    return {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p", "greedy")}


def _controls(controls: Controls | None) -> dict[str, Any] | None:
    if controls is None:
        return None
    names, commanded = list(controls.names), list(controls.commanded)
    turns = None
    if STEERING in names and SPEED in names:
        turns = [commanded.index(names.index(STEERING)), names.index(SPEED)]
    return {
        "names": names,
        "low": controls.low.tolist(),
        "high": controls.high.tolist(),
        "commanded": commanded,
        "followers": list(controls.followers),
        "weights": controls.weights.tolist(),
        "turns": turns,
    }


def _clip(start: Start, world: DreamWorld, tensors: Tensors) -> dict[str, Any]:
    """A clip with some seconds of what followed: tokens as uint16, actions as float32."""
    after = start.after[: round(FOLLOWED_S * world.fps)]
    tokens = np.concatenate([start.tokens.numpy(), np.asarray(after, np.int64)])
    rows = start.actions[: len(tokens) - 1].numpy()
    return {
        "name": start.name,
        "prompt": len(start.tokens),
        "steps": len(tokens),
        "tokens": tensors.add(tokens.astype(np.uint16)),
        "rows": len(rows),
        "actions": tensors.add(np.ascontiguousarray(rows, np.float32)),
    }
