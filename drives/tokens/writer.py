"""Writes token stores: drive by drive, by several processes at once, resumable after each drive."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import Float, Integer

from drives.splits.base import SPLITS
from drives.tokens.catalog import Catalog
from drives.tokens.drive import TokenDrive
from drives.tokens.manifest import MANIFEST, read_store_manifest, write_store_manifest
from drives.tokens.packing import PACKED_AT, lost_drives, pack, unpack_lost, write_rows
from drives.tokens.spec import TokenSpec, check_tokens
from training.disk.hashing import file_sha256
from training.disk.leftovers import partial_of, sweep_leftovers
from training.errors import BadInput

NewDrive = tuple[TokenDrive, dict[str, Any]]
ENTERED_AT_ONCE = 100


class TokenStoreWriter:
    """Writes a token store drive by drive; every finished drive survives an interruption.

    Several processes may write different drives into one store at the same time.

    Raises:
        BadInput: the folder holds a store of another spec or other action columns.
    """

    def __init__(self, root: Path, spec: TokenSpec, action_names: Sequence[str]) -> None:
        self.root, self.spec = Path(root), spec
        self.head: dict[str, Any] = {
            "spec": json.loads(json.dumps(asdict(spec))),
            "action_names": list(action_names),
        }
        self.manifest = self._read()
        self._lost: tuple[Catalog, set[str]] | None = None
        sweep_leftovers(self.root)

    def has(self, drive_id: str) -> bool:
        """Whether the drive is written, and its file is there; an interrupted run skips it."""
        drives: Catalog = self.manifest["drives"]
        if drive_id in drives.loose:
            return (self.root / drives.loose[drive_id]["file"]).is_file()
        return drive_id in drives and not self._is_lost(drive_id)

    def _is_lost(self, drive_id: str) -> bool:
        drives: Catalog = self.manifest["drives"]
        if self._lost is None or self._lost[0] is not drives:
            self._lost = drives, lost_drives(self.root, drives)
        return drive_id in self._lost[1]

    def write(
        self,
        drive_id: str,
        split: str,
        tokens: Integer[np.ndarray, "step *grid"],
        actions: Float[np.ndarray, "step action"],
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Write one drive, then add it to the manifest.

        Raises:
            BadInput: the grid differs, a token is outside the vocabulary, or the actions are not
                one finite row per step with the store's columns.
        """
        self.write_all([(TokenDrive(drive_id, split, tokens, actions), meta or {})])

    def write_all(self, drives: Iterable[NewDrive]) -> None:
        """Write drives with their metadata as they arrive; same errors as `write`.

        The manifest is rewritten once per hundred drives.
        """
        written: dict[str, tuple[Path, dict[str, Any]]] = {}
        try:
            for drive, meta in drives:
                written[drive.id] = self._write_file(drive, meta)
                if len(written) == ENTERED_AT_ONCE:
                    self._enter(written)
                    written = {}
        finally:
            if written:
                self._enter(written)

    def _write_file(self, drive: TokenDrive, meta: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
        """Write the file under a temporary name; return its path and its manifest entry."""
        tokens, actions = drive.tokens, drive.actions
        check_tokens(tokens, self.spec, drive.id)
        if drive.split not in SPLITS:
            raise BadInput(f"{drive.id}: split is {drive.split!r}; use one of {', '.join(SPLITS)}")
        if actions.shape != (len(tokens), len(self.manifest["action_names"])) or not len(tokens):
            raise BadInput(
                f"{drive.id}: {len(tokens)} token steps for actions of shape {actions.shape}; "
                f"give one row per step with the columns {self.manifest['action_names']}"
            )
        if not np.isfinite(actions).all():
            step = int(np.argwhere(~np.isfinite(actions))[0][0])
            raise BadInput(f"{drive.id}: actions of step {step} are not finite; correct the drive")
        self.root.mkdir(parents=True, exist_ok=True)
        partial = partial_of(self.root / f"{drive.id}.arrow")
        write_rows(partial, self.spec, tokens, actions)
        return partial, {
            "split": drive.split,
            "file": f"{drive.id}.arrow",
            "num_steps": len(tokens),
            "sha256": file_sha256(partial),
            "meta": meta,
        }

    def _enter(self, written: dict[str, tuple[Path, dict[str, Any]]]) -> None:
        def enter() -> None:
            drives: Catalog = self.manifest["drives"]
            if any(id in drives and id not in drives.loose and self._is_lost(id) for id in written):
                self.manifest = unpack_lost(self.root, self.manifest)
                drives = self.manifest["drives"]
            loose = dict(drives.loose)
            for drive_id, (partial, entry) in written.items():
                if self.has(drive_id):  # another process wrote it in the meantime
                    partial.unlink()
                    continue
                partial.replace(self.root / entry["file"])
                loose[drive_id] = entry
            self.manifest["drives"] = drives.with_loose(loose)

        self._change(enter)

    def note(
        self, name: str, value: Any, join: Callable[[Any, Any], Any] = lambda before, now: now
    ) -> None:
        """Add a JSON value to the `notes` of the manifest.

        Args:
            join: merges the value of another process with this one.
        """

        def add() -> None:
            notes = self.manifest.setdefault("notes", {})
            notes[name] = join(notes[name], value) if name in notes else value

        self._change(add)

    def _read(self) -> dict[str, Any]:
        """The manifest on disk, if its spec matches; a new one where there is none."""
        if not (self.root / MANIFEST).exists():
            return {**self.head, "drives": Catalog({})}
        manifest = read_store_manifest(self.root)
        # Older stores lack newer fields; their spec may still be equal.
        found, asked = (
            {**values, "spec": TokenSpec.from_dict(values["spec"])}
            for values in (manifest, self.head)
        )
        for key, value in self.head.items():
            if found[key] != asked[key]:
                raise BadInput(
                    f"{self.root}: holds a store with another {key} ({manifest[key]} "
                    f"instead of {value}); choose another folder"
                )
        return manifest

    def _change(self, change: Callable[[], None]) -> None:
        """Apply a change to the current manifest: other processes write to the same store."""
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".manifest.lock"):
            self.manifest = self._read()
            change()
            write_store_manifest(self.root, self.manifest)
            loose = self.manifest["drives"].loose
            # Of a lost shard, many loose drives are missing: they are not worth a shard each time.
            if len(loose) >= PACKED_AT and sum(map(self.has, loose)) >= PACKED_AT:
                self.manifest = pack(self.root, self.manifest, self.spec)
