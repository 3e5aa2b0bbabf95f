"""The token store, training data of a world model: memory-mapped Arrow files, a row per frame.

    <root>/manifest.json        TokenSpec, action columns, every drive's split, length, sha256
    <root>/<drive_id>.arrow     columns tokens, actions; written with `datasets`
    <root>/shard-<hash>.arrow   the same of many drives, one after the other
    <root>/index-<hash>.arrow   which rows of which shard a drive is, split, sha256, metadata

Configs never repeat values of the manifest.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from drives.captions import Caption, read_captions
from drives.content import hashes_of
from drives.remote.mirror import mirror_of
from drives.splits.base import of_split
from drives.splits.footage import UNKNOWN, Footage, content_entry
from drives.tokens.catalog import Catalog
from drives.tokens.drive import MappedDrive, TokenDrive, actions_among, chosen
from drives.tokens.files import MappedFile, StoreFiles
from drives.tokens.manifest import REMEDY, read_store_manifest
from drives.tokens.spec import TokenSpec, frame_shape
from training.errors import BadInput

# Bytes that are read and checked within a second, when the store is opened.
CHECKED_AT_ONCE = 2**28


class TokenStore:
    """A token store opened for reading.

    A small store is checked when it is opened. Of a large one the sizes of the shards are; a file
    is, when it is first read. Either happens once per machine.

    Args:
        verify: whether files are checked against their sha256, and tokens against the vocabulary.
        on_corrupt: "stop" at a damaged drive, or "skip": set its `damage` and keep its position,
            so that the windows of all other drives keep their ids.

    Attributes:
        columns: all that is kept of every step.
        action_names: those that a model reads: `columns` without rewards.

    Raises:
        BadInput: the manifest is missing or of another schema, a file is missing, altered or of
            another shape, or tokens are outside the vocabulary.
    """

    def __init__(self, root: Path, verify: bool = True, on_corrupt: str = "stop") -> None:
        self.root, self.on_corrupt = Path(root), on_corrupt
        self.manifest = read_store_manifest(self.root)
        self.spec = TokenSpec.from_dict(self.manifest["spec"])
        self.columns: tuple[str, ...] = tuple(self.manifest["action_names"])
        self.action_names = actions_among(self.columns)
        self.catalog: Catalog = self.manifest["drives"]
        if not len(self.catalog):
            raise BadInput(f"{self.root}: the store holds no drives; {REMEDY}")
        width = len(self.columns)
        self._files = StoreFiles(self.root, self.catalog, self.spec, width, verify)
        self._captioned = self.catalog.saying("captions")
        self._all: list[TokenDrive] = []
        self._check()

    def _check(self) -> None:
        """What can be known at once; BadInput, or a warning where damage is skipped."""
        row = 4 * (self.spec.tokens_per_step + len(self.columns))
        if int(self.catalog.num_steps.sum()) * row <= CHECKED_AT_ONCE:
            self.prefetch(range(len(self.catalog)))
            found = [r for i in range(len(self.catalog)) if (r := self.damage_of(i))]
            hashes_of(self.root).save()
            _ = [self.captions_of(i) for i in range(len(self.catalog))]
        else:
            found = self._files.absent()
        if found and self.on_corrupt != "skip":
            raise BadInput(found[0])
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            print(f"warning: {len(found)} damaged, left out: {found[0]}{more}")

    def drives(self, split: str) -> list[TokenDrive]:
        """Drives of a split, sorted by id; BadInput where there are none."""
        return of_split(self.all, split, str(self.root))

    @property
    def all(self) -> list[TokenDrive]:
        """The drives of every split, sorted by id."""
        if not self._all:
            splits = self.catalog.splits()
            self._all = [
                MappedDrive(id, splits[row], self, row) for row, id in enumerate(self.catalog.ids)
            ]
        return self._all

    def find(self, drive_id: str) -> TokenDrive | None:
        """The drive of this id, whatever its split."""
        row = self.catalog.row(drive_id)
        return None if row is None else self.all[row]

    def footage(self, split: str | None = None) -> list[Footage]:
        """What the drives of a split show, or all; stores of before are known by their files."""
        found = [
            Footage(
                name,
                entry["split"],
                str(entry.get("meta", {}).get("footage") or content_entry(entry["sha256"])),
                str(entry.get("meta", {}).get("licence") or UNKNOWN),
                _roads(entry),
            )
            for name, entry in self.catalog.entries()
        ]
        return found if split is None else of_split(found, split, str(self.root))

    @property
    def captioned(self) -> bool:
        """Whether any drive has captions."""
        return any(self.captions_of(int(row)) for row in np.flatnonzero(self._captioned))

    @property
    def hash(self) -> str:
        """sha256 over tokens, actions, captions, splits and tokenizer."""
        parts = [self.manifest["spec"], self.columns, sorted(self.digests().items())]
        return _sha256(parts)

    def digests(self, split: str | None = None) -> dict[str, str]:
        """Digest of the content and split of every drive, by id.

        Args:
            split: as if all were in this split.
        """
        return {
            name: _sha256([split or e["split"], e["sha256"], e.get("meta", {}).get("captions", [])])
            for name, e in self.catalog.entries()
        }

    @property
    def far(self) -> bool:
        """Whether the store is at a URL."""
        return mirror_of(self.root) is not None

    def prefetch(self, rows: Iterable[int]) -> None:
        """Fetch the files of these drives in the background, where the store is at a URL."""
        self._files.prefetch(int(self.catalog.file[row]) for row in rows)

    def steps_of(self, row: int) -> int:
        """Token steps of a drive; `row` is its place in the order of the ids."""
        return int(self.catalog.num_steps[row])

    def tokens_of(self, row: int) -> np.ndarray:
        """A view of a drive's tokens; zeros where it is damaged and that is skipped."""
        file, first, steps = self._rows(row)
        if damage := file.damage or file.damaged.get(row, ""):
            self._stop(damage)
            return np.zeros((steps, *frame_shape(self.spec)), np.uint16)
        return file.tokens[first : first + steps]

    def actions_of(self, row: int) -> np.ndarray:
        """The same of its actions."""
        return chosen(self.columns_of(row), self.columns, self.action_names)

    def columns_of(self, row: int) -> np.ndarray:
        """The same of all its columns, rewards included."""
        file, first, steps = self._rows(row)
        if damage := file.damage or file.damaged.get(row, ""):
            self._stop(damage)
            return np.zeros((steps, len(self.columns)), np.float32)
        return file.actions[first : first + steps]

    def damage_of(self, row: int) -> str:
        """Why a drive cannot be read; "" where it can."""
        file = self._files[self.catalog.file[row]]
        return file.damage or file.damaged.get(row, "")

    def captions_of(self, row: int) -> tuple[Caption, ...]:
        """Texts about ranges of a drive's steps."""
        if not self._captioned[row]:
            return ()
        where = f"{self.root / 'manifest.json'}: {self.catalog.ids[row]}"
        entries = self.catalog.entry(row).get("meta", {}).get("captions", [])
        return read_captions(entries, self.steps_of(row), where)

    def roads_of(self, row: int) -> str:
        """Whether training has seen a drive's roads, where that is known."""
        return _roads(self.catalog.entry(row))

    def _rows(self, row: int) -> tuple[MappedFile, int, int]:
        catalog = self.catalog
        return self._files[catalog.file[row]], catalog.first[row], catalog.num_steps[row]

    def _stop(self, damage: str) -> None:
        if self.on_corrupt != "skip":
            raise BadInput(damage)


def _roads(entry: dict[str, Any]) -> str:
    return str(entry.get("meta", {}).get("roads", ""))


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
