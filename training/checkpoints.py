"""Checkpoints: a folder per step, verified when opened, complete or not there at all.

    checkpoints/step-001000/
        weights.safetensors     every parameter and buffer
        state.pt                optimizers, loops, callbacks, random states (weights_only)
        manifest.json           schema, kind, configs, hashes of all files

Under FSDP the weights and the optimizers' moments are in `shards/` instead, written by all ranks
(`training.sharded`). A folder without `state.pt` is an export: it can be evaluated, not resumed.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from training.errors import BadInput
from training.hashing import file_sha256

SCHEMA_VERSION = 2
READABLE = (1, 2)  # 1: release 0.1, without hashes of the shards
MANIFEST_KEY = "dashcast"
WEIGHTS, STATE, MANIFEST, SHARDS = "weights.safetensors", "state.pt", "manifest.json", "shards"


def write_checkpoint(
    path: Path,
    weights: dict[str, torch.Tensor],
    manifest: dict[str, Any],
    state: dict[str, Any] | None = None,
) -> None:
    """Write beside, sync, then rename: the folder is complete or absent.

    Raises:
        BadInput: `path` exists; nothing is overwritten.
    """
    partial = begin(path)
    tensors = {k: v.detach().to("cpu").contiguous().clone() for k, v in weights.items()}
    save_file(tensors, partial / WEIGHTS)
    if state is not None:
        torch.save(state, partial / STATE)
    commit(path, manifest)


def begin(path: Path) -> Path:
    """An empty folder beside `path`, to be filled and then committed."""
    if path.exists():
        raise BadInput(f"{path}: exists already; checkpoints are never overwritten")
    partial = partial_of(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def commit(path: Path, manifest: dict[str, Any]) -> None:
    """Hash and sync all files of the folder beside, write the manifest, rename, sync again."""
    partial = partial_of(path)
    files = sorted(f for f in partial.rglob("*") if f.is_file())
    hashes = {str(f.relative_to(partial)): file_sha256(f) for f in files}
    full = {"schema_version": SCHEMA_VERSION, **manifest, "files": hashes}
    (partial / MANIFEST).write_text(json.dumps(full, indent=1) + "\n")
    folders = {f.parent for f in files} | {partial}
    for entry in [*files, partial / MANIFEST, *folders]:
        _sync(entry)
    partial.rename(path)
    _sync(path.parent)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder, its files verified.

    Raises:
        BadInput: not one of our checkpoints, of another schema, truncated or altered.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise BadInput(
            f"ckpt={path}: not a dashcast checkpoint (no manifest.json); give a run folder or a "
            "folder like runs/NAME/checkpoints/step-001000"
        )
    try:
        manifest = json.loads(file.read_text())
        version, files = manifest["schema_version"], dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file}: truncated or altered ({error}); use another checkpoint") from error
    if version not in READABLE:
        raise BadInput(
            f"{file}: schema {version}, written at {manifest.get('run', {}).get('git', '?')}; this "
            f"release reads schema {READABLE[0]} to {READABLE[-1]}: use the release that wrote it"
        )
    for name, expected in files.items():
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise BadInput(f"{file}: names a file outside of its folder ({name})")
        if not (path / name).is_file() or file_sha256(path / name) != expected:
            raise BadInput(f"{path / name}: truncated or altered; use another checkpoint")
    return manifest


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """All parameters and buffers, whole: shards are put together, on one process."""
    if (path / SHARDS).is_dir():
        from training.sharded import read_whole

        return read_whole(path / SHARDS)
    try:
        return load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}/{WEIGHTS}: cannot be read ({error})") from error


def read_state(path: Path) -> dict[str, Any]:
    """Optimizers, loops and random states; nothing but tensors and plain values is unpickled.

    Raises:
        BadInput: the checkpoint has none, or its file holds anything else.
    """
    if not (path / STATE).is_file():
        raise BadInput(f"ckpt={path}: an export without optimizer state cannot be resumed")
    try:
        return dict(torch.load(path / STATE, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds; none of them may pass as another fault
        raise BadInput(
            f"{path / STATE}: refused, it holds more than tensors and plain values, or is damaged "
            f"({str(error).splitlines()[0]})"
        ) from error


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that `path` means: itself, or the newest verified one of a run folder.

    Raises:
        BadInput: nothing there, or nothing of it is whole.
    """
    if not path.exists():
        raise BadInput(f"ckpt={path}: no such file or folder")
    if (path / MANIFEST).exists():
        return path
    folders = newest_first(path)
    for folder in folders:
        try:
            read_manifest(folder)
        except BadInput as error:
            print(f"warning: skipping {error}")
            continue
        return folder
    if folders:
        raise BadInput(f"ckpt={path}: none of its {len(folders)} checkpoints is whole")
    read_manifest(path)
    raise AssertionError("read_manifest refuses a folder without a manifest")


def newest_first(run: Path) -> list[Path]:
    """The finished checkpoints of a run folder; partial ones have other names."""
    folder = run / "checkpoints" if (run / "checkpoints").is_dir() else run
    return sorted(folder.glob("step-*"), reverse=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
