"""Checkpoints: a folder per step, verified when opened, complete or not there at all.

    checkpoints/step-001000/
        weights.safetensors     every parameter and buffer
        state.pt                optimizers, loops, callbacks, random states (weights_only)
        manifest.json           schema, kind, configs, hashes of both files

A folder without `state.pt` is an export: it can be evaluated, but not resumed.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from training.errors import BadInput

SCHEMA_VERSION = 1
MANIFEST_KEY = "dashcast"


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
    if path.exists():
        raise BadInput(f"{path}: exists already; checkpoints are never overwritten")
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {k: v.detach().to("cpu").contiguous().clone() for k, v in weights.items()}
    save_file(tensors, partial / "weights.safetensors")
    if state is not None:
        torch.save(state, partial / "state.pt")
    files = {f.name: _sha256(f) for f in sorted(partial.iterdir())}
    full = {"schema_version": SCHEMA_VERSION, **manifest, "files": files}
    (partial / "manifest.json").write_text(json.dumps(full, indent=1) + "\n")
    for file in partial.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    partial.rename(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder, its files verified.

    Raises:
        BadInput: not one of our checkpoints, of another schema, truncated or altered.
    """
    file = path / "manifest.json"
    if not file.is_file():
        raise BadInput(
            f"ckpt={path}: not a dashcast checkpoint (no manifest.json); give a run folder or a "
            "folder like runs/NAME/checkpoints/step-001000"
        )
    try:
        manifest = json.loads(file.read_text())
        version, files = manifest["schema_version"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file}: truncated or altered ({error}); use another checkpoint") from error
    if version != SCHEMA_VERSION:
        raise BadInput(f"{file}: schema {version}, this release reads schema {SCHEMA_VERSION}")
    for name, expected in files.items():
        if not (path / name).is_file() or _sha256(path / name) != expected:
            raise BadInput(f"{path / name}: truncated or altered; use another checkpoint")
    return manifest


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path / "weights.safetensors")
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}/weights.safetensors: cannot be read ({error})") from error


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that `path` means: itself, or the newest verified one of a run folder.

    Raises:
        BadInput: nothing there, or nothing of it is whole.
    """
    if not path.exists():
        raise BadInput(f"ckpt={path}: no such file or folder")
    if (path / "manifest.json").exists():
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
    folder = run / "checkpoints" if (run / "checkpoints").is_dir() else run
    return sorted(folder.glob("step-*"), reverse=True)


class FolderCheckpointIO(CheckpointIO):
    """Teaches Lightning to save and load the folders above."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        state = dict(checkpoint)
        weights, manifest = state.pop("state_dict"), state.pop(MANIFEST_KEY)
        manifest = {**manifest, "step": checkpoint["global_step"]}
        write_checkpoint(Path(path), weights, manifest, state)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        folder = Path(path)
        manifest = read_manifest(folder)
        if "state.pt" not in manifest["files"]:
            raise BadInput(f"ckpt={folder}: an export without optimizer state cannot be resumed")
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        return {**state, "state_dict": read_weights(folder)}

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path)


class SaveCheckpoints(Checkpoint):
    """Saves every `every_steps` and at the end; keeps the newest `keep`."""

    def __init__(self, folder: Path, every_steps: int = 1000, keep: int = 2) -> None:
        if keep < 2:
            raise BadInput(f"checkpoints.keep={keep}: keep at least 2, one may turn out damaged")
        self.folder, self.every_steps, self.keep = Path(folder), every_steps, keep
        self._last_saved = -1

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        step = trainer.global_step
        due = step % self.every_steps == 0 or step == trainer.max_steps
        if due and step != self._last_saved and step > 0:
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        step = self._last_saved = trainer.global_step
        path = self.folder / f"step-{step:07d}"
        if not path.exists():
            trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            for old in newest_first(self.folder)[self.keep :]:
                shutil.rmtree(old)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
