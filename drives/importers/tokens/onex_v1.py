"""1X's robot recordings, version 1.1 (github.com/1x-technologies/1xgpt): tokens of MAGVIT2.

    <set>/metadata.json       num_images, s, and perhaps vocab_size, hz, token_dtype
    <set>/video.bin           token_dtype [frame s s]
    <set>/segment_ids.bin     int32 [frame]; a new id is a new recording; may be absent
    <set>/actions/NAME.bin    float32 [frame width]; the width is that of the file

The bits of a token are little-endian: channel c of the tokenizer's latent is bit c.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Integer
from pydantic import PositiveFloat

from drives.importers.tokens.onex_sets import Count, find_sets, read_settings, split_of
from drives.importers.tokens.raw_array import check_finite, raw_array, raw_rows, runs_of
from drives.importers.tokens.token_import import content_key, import_tokens
from drives.tokens.spec import TokenSpec, check_tokens
from drives.tokens.store import TokenDrive, TokenStore
from drives.tokens.writer import NewDrive
from training.errors import BadInput
from training.ranges import one_of

VIDEO = "video.bin"
PIXELS_PER_TOKEN = 16
NUM_FACTORS, FACTOR = 2, 512  # of the published vocabulary


@dataclass(frozen=True)
class OnexMetadata:
    """What is read of `metadata.json`; upstream's defaults."""

    num_images: Count
    s: Count
    vocab_size: Count = FACTOR**NUM_FACTORS
    hz: PositiveFloat = 30
    token_dtype: str = "uint32"

    def __post_init__(self) -> None:
        one_of(("uint8", "uint16", "uint32", "int32", "int64"), token_dtype=self.token_dtype)


@dataclass(frozen=True)
class OnexRecordings:
    """A set as published, memory-mapped.

    Attributes:
        segment_ids: None where the set has none: it is one recording.
        actions: by the names of their files, in that order.
    """

    folder: Path
    metadata: OnexMetadata
    tokens: Integer[np.ndarray, "frame s s"] = field(repr=False)
    segment_ids: Int[np.ndarray, " frame"] | None = field(repr=False)
    actions: dict[str, Float[np.ndarray, "frame _"]] = field(repr=False)

    @property
    def spec(self) -> TokenSpec:
        side, vocab = self.metadata.s, self.metadata.vocab_size
        return TokenSpec(
            grid=(1, side, side),
            vocab_size=vocab,
            fps=float(self.metadata.hz),
            frames_per_step=1,
            image_size=(PIXELS_PER_TOKEN * side, PIXELS_PER_TOKEN * side),
            tokenizer="magvit2",
            factors=(FACTOR,) * NUM_FACTORS if vocab == FACTOR**NUM_FACTORS else (),
            bit_order="little",
        )

    @property
    def action_names(self) -> tuple[str, ...]:
        """NAME, or NAME_0, NAME_1 ... of a file with several columns."""
        names = []
        for name, rows in self.actions.items():
            width = rows.shape[1]
            names += [name] if width == 1 else [f"{name}_{i}" for i in range(width)]
        return tuple(names)

    def segments(self) -> list[tuple[int, int, int]]:
        """(id, first frame, frame after the last) of every recording."""
        if self.segment_ids is None:
            return [(0, 0, len(self.tokens))]
        return runs_of(self.folder / "segment_ids.bin", self.segment_ids)


def read_onex_v1(folder: Path) -> OnexRecordings:
    """A set, all of it checked.

    Raises:
        BadInput: as `open_onex_v1`; tokens outside of the vocabulary, actions that are not finite,
            or an id that returns.
    """
    found = open_onex_v1(folder)
    check_tokens(found.tokens, found.spec, str(folder / VIDEO))
    for name, rows in found.actions.items():
        check_finite(folder / "actions" / f"{name}.bin", rows)
    found.segments()
    return found


def open_onex_v1(folder: Path) -> OnexRecordings:
    """A set; its contents are not read yet.

    Raises:
        BadInput: a file is missing, or has another size than the metadata says.
    """
    said = read_settings(OnexMetadata, folder / "metadata.json")
    num, ids = said.num_images, folder / "segment_ids.bin"
    return OnexRecordings(
        folder,
        said,
        raw_array(folder / VIDEO, said.token_dtype, (num, said.s, said.s)),
        raw_array(ids, "int32", (num,)) if ids.exists() else None,
        {file.stem: raw_rows(file, "float32", num) for file in _action_files(folder)},
    )


def find_onex_v1(root: Path) -> list[Path]:
    """The files of a set, or of the sets one folder below.

    Raises:
        BadInput: there are none.
    """
    sets = find_sets(root, (VIDEO,), "1X's val_v1.1 (metadata.json, video.bin) or its parent")
    found = []
    for folder in sets:
        optional = [folder / "segment_ids.bin", *_action_files(folder)]
        found += [folder / "metadata.json", folder / VIDEO, *filter(Path.exists, optional)]
    return found


def plan_onex_v1(root: Path) -> tuple[TokenSpec, tuple[str, ...]]:
    """Spec and action columns of the store to be.

    Raises:
        BadInput: as `open_onex_v1`; sets of different grids, rates or actions.
    """
    first, *others = [
        open_onex_v1(file.parent) for file in find_onex_v1(root) if file.name == VIDEO
    ]
    for other in others:
        if (other.spec, other.action_names) != (first.spec, first.action_names):
            raise BadInput(
                f"{other.folder}: differs from {first.folder} in grid, vocabulary, rate or "
                "columns of actions; import them one by one"
            )
    return first.spec, first.action_names


def import_onex_v1(root: Path, out: Path) -> TokenStore:
    """Write every recording as a drive; its split is in the name of its set.

    Row t of the actions is what was recorded at frame t, in force until the next.

    Raises:
        BadInput: as `read_onex_v1` and `plan_onex_v1`; or `out` holds another store.
    """
    key = content_key("onex_v1", find_onex_v1(root), out.parent)
    spec, names = plan_onex_v1(root)
    return import_tokens(out, key, spec, names, lambda: _drives(root))


def _action_files(folder: Path) -> list[Path]:
    return sorted((folder / "actions").glob("*.bin"))


def _drives(root: Path) -> Iterator[NewDrive]:
    folders = [file.parent for file in find_onex_v1(root) if file.name == VIDEO]
    for found in [read_onex_v1(folder) for folder in folders]:  # all of them before the first
        segments = found.segments()
        for index, (number, start, stop) in enumerate(segments):
            name = f"{found.folder.resolve().name}-{number:06d}"
            rows = [values[start:stop] for values in found.actions.values()]
            actions = np.concatenate(rows or [np.zeros((stop - start, 0), np.float32)], axis=1)
            split = split_of(found.folder, name, index, len(segments))
            meta = {
                "source": f"1X, {found.folder / VIDEO}",
                "segment": number,
                "source_frames": [start, stop],
            }
            yield TokenDrive(name, split, found.tokens[start:stop], actions), meta
