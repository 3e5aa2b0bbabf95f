"""Checkpoints: one folder per step, written atomically, verified when opened.

    checkpoints/step-001000/
        weights.safetensors     every parameter and buffer
        state.pt                optimizers, loops, callbacks, random states (weights_only)
        manifest.json           schema, kind, configs, hashes of all files; sealed by its own

Under FSDP the weights and the optimizers' moments are in `shards/` instead, written by all ranks
(`training.checkpoints.sharded`). A folder without `state.pt` is an export: it can be evaluated but
not resumed.

`open_checkpoint` is the way in for all that resumes no run: manifest and weights. `read_manifest`
is cheap: the seal, the values and the sizes. `check_whole` hashes every file.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from training.checkpoints.manifests import (
    MANIFEST,
    SCHEMA_VERSION,
    SHARDS,
    STATE,
    WEIGHTS,
    check_kind,
    check_resumable,
    read_manifest,
)
from training.checkpoints.parts import part_of
from training.checkpoints.pieces import read_whole
from training.checkpoints.weights import refuse_altered, verified_weights, weights_in
from training.disk.hashing import file_sha256
from training.disk.records import sealed, sync
from training.errors import BadInput, NotSaved, first_line

MANIFEST_KEY = "dashcast"
Found = TypeVar("Found")
REFUSALS = (OSError, SafetensorError)  # raised where a disk is full or read-only
TORCH_SAYS = ("inline_container", "iostream")  # in torch.save's RuntimeError for the same cause


class OpenedCheckpoint(NamedTuple):
    """A verified checkpoint without its optimizer state.

    Attributes:
        path: its folder.
        weights: every parameter and buffer, on the CPU.
    """

    path: Path
    manifest: dict[str, Any]
    weights: dict[str, torch.Tensor]

    def part(self, kind: str) -> "OpenedCheckpoint":
        """The part of this kind, or itself where it has no parts; BadInput: of another kind."""
        manifest, begins = part_of(self.manifest, kind, self.path)
        check_kind(manifest, self.path, kind)
        weights = {name: value for name, value in self.weights.items() if name.startswith(begins)}
        return OpenedCheckpoint(self.path, manifest, weights)


def open_checkpoint(path: Path, kind: str = "") -> OpenedCheckpoint:
    """The checkpoint that `path` means, as in `find_checkpoint`; weights are hashed when read.

    Args:
        kind: what it has to be, "tokenizer" or "worldmodel"; "" for any.

    Raises:
        BadInput: nothing there, nothing of it is whole, or it is of another kind.
    """
    if kind:
        _refuse_other_kind(path, kind)
    folder, (manifest, weights) = _first_whole(path, _whole_weights)
    return OpenedCheckpoint(folder, manifest, weights).part(kind)


def _refuse_other_kind(path: Path, kind: str) -> None:
    """BadInput where the newest manifest that can be read says so; no weights are hashed."""
    for folder in [path] if (path / MANIFEST).exists() else newest_first(path):
        try:
            manifest = read_manifest(folder)
        except BadInput:
            continue  # `_first_whole` says what is wrong with it
        check_kind(part_of(manifest, kind, folder)[0], folder, kind)
        return


def write_checkpoint(
    path: Path,
    weights: dict[str, torch.Tensor],
    manifest: dict[str, Any],
    state: dict[str, Any] | None = None,
) -> None:
    """Write a partial folder, sync, then rename: the checkpoint is complete or absent.

    Raises:
        BadInput: `path` exists; nothing is overwritten.
        NotSaved: the disk is full or read-only; no partial folder remains.
    """
    tensors = {k: v.detach().to("cpu").contiguous().clone() for k, v in weights.items()}
    with writing(path):
        partial = begin(path)
        save_file(tensors, partial / WEIGHTS)
        if state is not None:
            save_state(state, partial)
        commit(path, manifest)


def save_state(state: dict[str, Any], folder: Path) -> None:
    """Write the optimizers' file into a partial folder."""
    # Given a path, torch never closes a file after a full disk, and a removed open file keeps its
    # space until the process ends.
    try:
        with (folder / STATE).open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        if not any(word in str(error) for word in TORCH_SAYS):
            raise
        raise OSError(f"{STATE}: the disk takes no more") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """On an exception, remove the partial folder; a disk error becomes NotSaved."""
    try:
        yield
    except BaseException as error:
        shutil.rmtree(partial_of(path), ignore_errors=True)
        if isinstance(error, REFUSALS) and not isinstance(error, NotSaved):
            raise NotSaved(path, why_refused(path, error)) from error
        raise


def why_refused(path: Path, error: BaseException) -> str:
    """One line: the library's message and the free space."""
    folder = next((p for p in path.parents if p.is_dir()), Path("/"))
    free = shutil.disk_usage(folder).free / 1e6
    return f"{first_line(error)}; {free:.1f} MB are free there, make room"


def begin(path: Path) -> Path:
    """An empty partial folder beside `path`."""
    if path.exists():
        raise BadInput(f"{path}: exists already; checkpoints are never overwritten")
    partial = partial_of(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def commit(path: Path, manifest: dict[str, Any]) -> None:
    """Hash and sync all files of the partial folder, seal the manifest, rename, sync again."""
    partial = partial_of(path)
    files = sorted(f for f in partial.rglob("*") if f.is_file())
    names = {str(f.relative_to(partial)): f for f in files}
    facts = {
        "files": {name: file_sha256(file) for name, file in names.items()},
        "sizes": {name: file.stat().st_size for name, file in names.items()},
    }
    full = {"schema_version": SCHEMA_VERSION, **manifest, **facts}
    full["schema_version"] = SCHEMA_VERSION  # an export copies the manifest of an older one
    (partial / MANIFEST).write_bytes(sealed(full, str(path / MANIFEST)))
    folders = {f.parent for f in files} | {partial}
    for entry in [*files, partial / MANIFEST, *folders]:
        sync(entry)
    partial.rename(path)
    sync(path.parent)


def check_whole(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after all its files were verified.

    Raises:
        BadInput: as `read_manifest`; or a file is altered, or a shard is not listed.
    """
    return _check(path, lambda name: True)


def check_weights(path: Path) -> dict[str, Any]:
    """As `check_whole`, without the optimizer state (only a resume needs it)."""
    return _check(path, lambda name: name != STATE)


def _check(path: Path, chosen: Callable[[str], bool]) -> dict[str, Any]:
    manifest = read_manifest(path)
    for name, expected in manifest["files"].items():
        if chosen(name):
            refuse_altered(path / name, expected)
    for file in (path / SHARDS).glob("*"):  # all of them are read
        if f"{SHARDS}/{file.name}" not in manifest["files"]:
            raise BadInput(f"{file}: is no part of this checkpoint; remove it")
    return manifest


def read_weights(path: Path, verify: bool = True) -> dict[str, torch.Tensor]:
    """All parameters and buffers; shards are joined in one process.

    Args:
        verify: hash the files; False only after `check_whole`.

    Raises:
        BadInput: as `check_whole`, the optimizer state aside.
    """
    if verify:
        return _whole_weights(path)[1]
    if (path / SHARDS).is_dir():
        return read_whole(path / SHARDS)
    return weights_in(path / WEIGHTS)


def _whole_weights(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The manifest and the weights, verified as by `check_weights`."""
    if (path / SHARDS).is_dir():
        return check_weights(path), read_whole(path / SHARDS)
    manifest = _check(path, lambda name: name not in (STATE, WEIGHTS))
    return manifest, verified_weights(path / WEIGHTS, manifest["files"][WEIGHTS])


def read_state(path: Path) -> dict[str, Any]:
    """Optimizers, loops and random states; unpickles only tensors and plain values.

    Raises:
        BadInput: the checkpoint has none, or its file holds other objects.
    """
    check_resumable(path, (path / STATE).is_file())
    try:
        return dict(torch.load(path / STATE, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds; all mean a bad file
        raise BadInput(
            f"{path / STATE}: refused, it holds more than tensors and plain values, or is damaged "
            f"({first_line(error)})"
        ) from error


def find_checkpoint(path: Path, resume: bool = False) -> Path:
    """The checkpoint at `path`, or the newest whole one of a run folder.

    Args:
        resume: whether to verify the optimizer state too.

    Raises:
        BadInput: there is no checkpoint, or none is whole.
    """
    if (path / MANIFEST).exists():
        return path
    return _first_whole(path, check_whole if resume else check_weights)[0]


def _first_whole(path: Path, check: Callable[[Path], Found]) -> tuple[Path, Found]:
    """`path`, or the newest of its checkpoints that passes; and what `check` says of it."""
    if not path.exists():
        raise BadInput(f"ckpt={path}: no such file or folder")
    folders = newest_first(path)
    if (path / MANIFEST).exists() or not folders:
        return path, check(path)  # which names what is missing where no checkpoint is there
    for folder in folders:
        try:
            return folder, check(folder)
        except BadInput as error:
            print(f"warning: skipping {error}")
    raise BadInput(f"ckpt={path}: none of its {len(folders)} checkpoints is whole")


def newest_first(run: Path) -> list[Path]:
    """The finished checkpoints of a run folder; partial and damaged ones have other names."""
    folder = run / "checkpoints" if (run / "checkpoints").is_dir() else run
    named = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(named, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The optimizer step in the name of a folder `step-N`."""
    return int(path.name.removeprefix("step-"))


def prune(newest: Path, keep: int | None) -> None:
    """Remove what is older than the newest `keep` whole checkpoints, one of which is now durable.

    Whole means sealed and of the sizes that were written; gigabytes are not hashed again at every
    save. What was written in this run has been hashed then, what it was resumed from when opened.
    """
    beside, found = newest.parent, newest_first(newest.parent)
    whole = [folder for folder in found if folder == newest or _looks_whole(folder)]
    doomed = [*beside.glob(".step-*.partial"), *beside.glob(".step-*.damaged")]  # killed; replaced
    if keep and len(whole) > keep:
        oldest = min(step_of(newest), step_of(whole[keep - 1]))
        doomed += [folder for folder in found if step_of(folder) < oldest]
    for folder in doomed:
        try:
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        except OSError as error:
            print(f"warning: {folder}: cannot be removed ({error.strerror})")


def _looks_whole(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except BadInput:
        return False
    return True
