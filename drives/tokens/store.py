"""The token store, training data of a world model: memory-mapped Arrow files, a row per frame.

    <root>/manifest.json        TokenSpec, action columns, every drive's split, length, sha256
    <root>/<drive_id>.arrow     columns tokens, actions; written and read with `datasets`

Configs never repeat values of the manifest.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from jaxtyping import Float, Integer

from drives.captions import Caption, read_captions
from drives.content import hashes_of
from drives.splits.base import of_split
from drives.splits.footage import UNKNOWN, Footage, content_entry
from drives.tokens.manifest import REMEDY, read_store_manifest
from drives.tokens.spec import TokenSpec
from training.errors import BadInput


@dataclass(frozen=True)
class TokenDrive:
    """One encoded drive: memory-mapped arrays, copied only when indexed.

    Attributes:
        tokens: [step height width] (or [step time height width] where T' > 1), unsigned.
        actions: float32 [step action]; row t explains step t+1.
        damage: why the drive cannot be read; its tokens and actions are then zeros.
        captions: texts about ranges of steps; empty in old stores.
        roads: "seen" or "unseen" in training, where that is known.
    """

    id: str
    split: str
    tokens: Integer[np.ndarray, "step *grid"] = field(repr=False)
    actions: Float[np.ndarray, "step action"] = field(repr=False)
    damage: str = ""
    captions: tuple[Caption, ...] = ()
    roads: str = ""


class TokenStore:
    """A token store opened for reading.

    Args:
        on_corrupt: "stop" at a damaged drive, or "skip": set its `damage` and keep its position,
            so that the windows of all other drives keep their ids.

    Raises:
        BadInput: the manifest is missing or of another schema, a file is missing, altered or of
            another shape, or tokens are outside the vocabulary.
    """

    def __init__(self, root: Path, verify: bool = True, on_corrupt: str = "stop") -> None:
        self.root = Path(root)
        self.manifest = read_store_manifest(self.root)
        self.spec = TokenSpec.from_dict(self.manifest["spec"])
        self.action_names: tuple[str, ...] = tuple(self.manifest["action_names"])
        entries = sorted(self.manifest["drives"].items())
        if not entries:
            raise BadInput(f"{self.root}: the store holds no drives; {REMEDY}")
        self._drives = {
            name: self._open(name, entry, verify, on_corrupt) for name, entry in entries
        }
        hashes_of(self.root).save()

    def drives(self, split: str) -> list[TokenDrive]:
        """Drives of a split, sorted by id; BadInput where there are none."""
        return of_split(self.all, split, str(self.root))

    @property
    def all(self) -> list[TokenDrive]:
        """The drives of every split, sorted by id."""
        return list(self._drives.values())

    def find(self, drive_id: str) -> TokenDrive | None:
        """The drive of this id, whatever its split."""
        return self._drives.get(drive_id)

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
            for name, entry in sorted(self.manifest["drives"].items())
        ]
        return found if split is None else of_split(found, split, str(self.root))

    @property
    def captioned(self) -> bool:
        """Whether any drive has captions."""
        return any(drive.captions for drive in self._drives.values())

    @property
    def hash(self) -> str:
        """sha256 over tokens, actions, captions, splits and tokenizer."""
        parts = [self.manifest["spec"], self.action_names, sorted(self.digests().items())]
        return _sha256(parts)

    def digests(self, split: str | None = None) -> dict[str, str]:
        """Digest of the content and split of every drive, by id.

        Args:
            split: as if all were in this split.
        """
        return {
            name: _sha256([split or e["split"], e["sha256"], e.get("meta", {}).get("captions", [])])
            for name, e in self.manifest["drives"].items()
        }

    def _open(
        self, drive_id: str, entry: dict[str, Any], verify: bool, on_corrupt: str
    ) -> TokenDrive:
        roads = _roads(entry)
        try:
            tokens, actions = self._read(entry, verify)
        except BadInput as error:
            if on_corrupt != "skip":
                raise
            steps = int(entry["num_steps"])
            tokens = np.zeros((steps, *frame_shape(self.spec)), np.uint16)
            actions = np.zeros((steps, len(self.action_names)), np.float32)
            return TokenDrive(drive_id, entry["split"], tokens, actions, str(error), roads=roads)
        entries = entry.get("meta", {}).get("captions", [])
        captions = read_captions(entries, len(tokens), f"{self.root / 'manifest.json'}: {drive_id}")
        return TokenDrive(drive_id, entry["split"], tokens, actions, "", captions, roads)

    def _read(self, entry: dict[str, Any], verify: bool) -> tuple[np.ndarray, np.ndarray]:
        path = self.root / entry["file"]
        if not path.is_file():
            raise BadInput(f"{path}: missing; encode the drives again")
        if verify and hashes_of(self.root).of(entry["file"], path) != entry["sha256"]:
            raise BadInput(
                f"{path}: altered since it was written (sha256 differs); encode it again"
            )
        tokens, actions = self._columns(path)
        if len(tokens) != entry["num_steps"] or len(actions) != entry["num_steps"]:
            raise BadInput(
                f"{path}: {len(tokens)} steps where the manifest says {entry['num_steps']}; "
                "encode the drives again"
            )
        if verify:
            check_tokens(tokens, self.spec, str(path))
        return tokens, actions

    def _columns(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        shape = frame_shape(self.spec)
        try:
            table = Dataset.from_file(str(path)).data
            tokens = _column(table, "tokens", self.spec.tokens_per_step)
            if self.action_names:
                actions = _column(table, "actions", len(self.action_names))
            else:
                actions = np.zeros((len(tokens), 0), np.float32)
        except (pa.ArrowException, LookupError, ValueError, TypeError, OSError) as error:
            raise BadInput(
                f"{path}: is not what the manifest describes ({error}); encode the drives again"
            ) from error
        return tokens.reshape(-1, *shape), actions


def _roads(entry: dict[str, Any]) -> str:
    return str(entry.get("meta", {}).get("roads", ""))


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def check_tokens(tokens: np.ndarray, spec: TokenSpec, where: str) -> None:
    """BadInput unless the tokens are integers of the spec's grid, inside its vocabulary."""
    shape = frame_shape(spec)
    if not np.issubdtype(tokens.dtype, np.integer):
        raise BadInput(f"{where}: tokens are {tokens.dtype}; give integers")
    if tokens.shape[1:] != shape:
        raise BadInput(
            f"{where}: token grid is {tokens.shape[1:]}, but the tokenizer has {shape}; "
            "is this another tokenizer's store?"
        )
    low, high = (int(tokens.min()), int(tokens.max())) if tokens.size else (0, 0)
    if low < 0 or high >= spec.vocab_size:
        bad = low if low < 0 else high
        step = int(np.argwhere(tokens == bad)[0][0])
        raise BadInput(
            f"{where}: step {step} holds token {bad}, outside the vocabulary "
            f"0..{spec.vocab_size - 1}; is this another tokenizer's store?"
        )


def frame_shape(spec: TokenSpec) -> tuple[int, ...]:
    """Sides of a time step's tokens as a store keeps them: without T' where it is 1."""
    return spec.grid[1:] if spec.grid[0] == 1 else spec.grid


def _column(table: Any, name: str, width: int) -> np.ndarray:
    """A fixed-size list column as [row width]; a view of the file if it has one chunk."""
    column = table.column(name)
    if getattr(column.type, "list_size", None) != width:
        raise ValueError(f"column {name} is {column.type}, not lists of {width}")
    chunks = [c.flatten().to_numpy(zero_copy_only=True) for c in column.chunks]
    values = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    return values.reshape(-1, width)
