"""The token store: what a world model trains on. Arrow files, one row per frame, memory-mapped.

    <root>/manifest.json        TokenSpec, action columns, every drive's split, length, sha256
    <root>/<drive_id>.arrow     columns tokens, actions; written and read with `datasets`

Nothing that the manifest says is ever typed into a config.
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

from tokenizer.captions import Caption, read_captions
from tokenizer.transforms import Preprocessing
from training.errors import BadInput
from training.hashing import file_sha256

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TokenSpec:
    """What the integers of a store mean.

    Attributes:
        grid: (T', H', W') tokens of one token step.
        vocab_size: number of different tokens; values are 0 .. vocab_size - 1.
        fps: token steps per second times `frames_per_step`: the rate of the frames encoded.
        frames_per_step: frames that one token step stands for (1 for image tokenizers).
        image_size: (height, width) in pixels of a decoded frame.
        tokenizer: what made the tokens: a sha256, or a published tokenizer's name.
        factors: sizes whose product is the vocabulary, where it is factorised.
        bit_order: "little" or "big" for binary (LFQ) codes, else "".
        preprocessing: what was done to a recorded frame before it was encoded.
    """

    grid: tuple[int, int, int]
    vocab_size: int
    fps: float
    frames_per_step: int
    image_size: tuple[int, int]
    tokenizer: str
    factors: tuple[int, ...] = ()
    bit_order: str = ""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def tokens_per_step(self) -> int:
        return int(np.prod(self.grid))

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "TokenSpec":
        """The spec as a manifest holds it; TypeError where a field is missing or unknown."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        if "preprocessing" in fields:
            fields["preprocessing"] = Preprocessing.from_dict(fields["preprocessing"])
        return TokenSpec(**fields)


@dataclass(frozen=True)
class TokenDrive:
    """One encoded drive: memory-mapped arrays that copy nothing until they are indexed.

    Attributes:
        tokens: [step height width] (or [step time height width] where T' > 1), unsigned.
        actions: float32 [step action]; row t explains step t+1.
        damage: why it cannot be read; its tokens and actions are then zeros in its length.
        captions: what is said of which steps; stores made before there were any have none.
    """

    id: str
    split: str
    tokens: Integer[np.ndarray, "step *grid"] = field(repr=False)
    actions: Float[np.ndarray, "step action"] = field(repr=False)
    damage: str = ""
    captions: tuple[Caption, ...] = ()


class TokenStore:
    """A token store opened for reading.

    Args:
        on_corrupt: "stop" at a damaged drive, or "skip": keep its place, so that the windows of
            all others keep their ids, and mark its `damage`.

    Raises:
        BadInput: manifest missing or of another schema, a file missing, altered or of
            another shape, or tokens outside the vocabulary.
    """

    def __init__(self, root: Path, verify: bool = True, on_corrupt: str = "stop") -> None:
        self.root = Path(root)
        self.manifest = read_store_manifest(self.root)
        self.spec = TokenSpec.from_dict(self.manifest["spec"])
        self.action_names: tuple[str, ...] = tuple(self.manifest["action_names"])
        entries = sorted(self.manifest["drives"].items())
        self._drives = {
            name: self._open(name, entry, verify, on_corrupt) for name, entry in entries
        }

    def drives(self, split: str) -> list[TokenDrive]:
        """Drives of a split, sorted by id; val and test stand in for each other if one is empty."""
        other = {"train": "train", "val": "test", "test": "val"}.get(split)
        if other is None:
            raise BadInput(f"{self.root}: split is {split!r}; use one of train, val, test")
        found = [drive for drive in self._drives.values() if drive.split == split]
        if not found:
            found = [drive for drive in self._drives.values() if drive.split == other]
        if not found:
            raise BadInput(
                f"{self.root}: no drive is in the {split} split; encode drives that have one"
            )
        return found

    def find(self, drive_id: str) -> TokenDrive | None:
        """The drive of this id, whatever its split."""
        return self._drives.get(drive_id)

    @property
    def captioned(self) -> bool:
        """Whether anything is said of any drive."""
        return any(drive.captions for drive in self._drives.values())

    @property
    def hash(self) -> str:
        """sha256 over the manifest: names data, split and tokenizer at once."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()

    def _open(
        self, drive_id: str, entry: dict[str, Any], verify: bool, on_corrupt: str
    ) -> TokenDrive:
        try:
            tokens, actions = self._read(entry, verify)
        except BadInput as error:
            if on_corrupt != "skip":
                raise
            steps = int(entry["num_steps"])
            tokens = np.zeros((steps, *_frame_shape(self.spec)), np.uint16)
            actions = np.zeros((steps, len(self.action_names)), np.float32)
            return TokenDrive(drive_id, entry["split"], tokens, actions, str(error))
        said = entry.get("meta", {}).get("captions", [])
        captions = read_captions(said, len(tokens), f"{self.root / 'manifest.json'}: {drive_id}")
        return TokenDrive(drive_id, entry["split"], tokens, actions, captions=captions)

    def _read(self, entry: dict[str, Any], verify: bool) -> tuple[np.ndarray, np.ndarray]:
        path = self.root / entry["file"]
        if not path.is_file():
            raise BadInput(f"{path}: missing; encode the drives again")
        if verify and file_sha256(path) != entry["sha256"]:
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
        shape = _frame_shape(self.spec)
        try:
            table = Dataset.from_file(str(path)).data
            tokens = _column(table, "tokens", self.spec.tokens_per_step)
            if self.action_names:
                actions = _column(table, "actions", len(self.action_names))
            else:
                actions = np.zeros((len(tokens), 0), np.float32)
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise BadInput(
                f"{path}: is not what the manifest describes ({error}); encode the drives again"
            ) from error
        return tokens.reshape(-1, *shape), actions


def check_tokens(tokens: np.ndarray, spec: TokenSpec, where: str) -> None:
    """BadInput unless the tokens are integers of the spec's grid, inside its vocabulary."""
    shape = _frame_shape(spec)
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


def _frame_shape(spec: TokenSpec) -> tuple[int, ...]:
    return spec.grid[1:] if spec.grid[0] == 1 else spec.grid


def read_store_manifest(root: Path) -> dict[str, Any]:
    """What a store says of itself; BadInput where there is none, or one of another schema."""
    path = root / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BadInput(
            f"{path}: no token store there; make one: python -m tokenizer.encode"
        ) from error
    except ValueError as error:
        raise BadInput(f"{path}: is not JSON ({error}); encode the drives again") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise BadInput(
            f"{path}: schema version is {version!r}, this release reads {SCHEMA_VERSION}; "
            "encode the drives again"
        )
    try:
        TokenSpec.from_dict(manifest["spec"])
        _ = manifest["action_names"]
        for entry in manifest["drives"].values():
            _ = entry["split"], entry["file"], entry["num_steps"], entry["sha256"]
    except (TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{path}: is damaged ({error}); encode the drives again") from error
    return manifest


def _column(table: Any, name: str, width: int) -> np.ndarray:
    """A fixed-size list column as [row width]; a view of the file where it is one chunk."""
    column = table.column(name)
    if getattr(column.type, "list_size", None) != width:
        raise ValueError(f"column {name} is {column.type}, not lists of {width}")
    chunks = [c.flatten().to_numpy(zero_copy_only=True) for c in column.chunks]
    values = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    return values.reshape(-1, width)
