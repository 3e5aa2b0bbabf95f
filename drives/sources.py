"""Sources of data: embedded drives, a folder of drives, or existing tokens."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from drives.actions.units import OUTCOMES, is_action
from drives.carracing.config import OUTCOME_SWITCHES, CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, columns_of, make_drives
from drives.config import DriveSourceConfig, TokenSourceConfig, existing_root
from drives.content import hashes_of
from drives.drive import Drive
from drives.folder import at_one_rate, common_rate, open_drives
from drives.importers.tokens.commavq_segments import files_key
from drives.importers.tokens.formats import TOKEN_FORMATS
from drives.importers.tokens.token_import import content_key
from drives.remote.mirror import fetch_whole, folder_of, is_url
from drives.tokens.store import TokenSpec, TokenStore
from training.disk.judging import judged
from training.errors import BadInput
from training.ranges import one_of


class DriveSource(DriveSourceConfig):
    """Drives of one folder; see `DriveSourceConfig`."""

    @property
    def embedded(self) -> bool:
        return self.root is None

    @property
    def folder(self) -> Path:
        if self.root is not None:
            return folder_of(self.root, Path(self.cache), self.remote_cache_gb)
        if self.carracing == CarRacingConfig():
            return Path(self.cache) / "carracing"
        settings = repr(self.carracing)
        for switch in OUTCOME_SWITCHES:  # as before there were any: drives of before are found
            settings = settings.replace(f", {switch}=False", "")
        key = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return Path(self.cache) / f"carracing-{key}"

    def open(self, needed: str = "train") -> list[Drive]:
        """All drives, checked; missing embedded drives are made first.

        Args:
            needed: a split that must have a drive.

        Raises:
            BadInput: the root or one of its drives is unusable.
        """
        if self.embedded:
            self._judge_embedded_actions()
            make_drives(self.folder, self.carracing)
        drives = self._opened(needed)
        self._say_left_out(drives)
        hashes = hashes_of(self.folder)
        hashes.keep_in(Path(self.cache))
        hashes.of_all({drive.path.name: drive.source for drive in drives}, "drives")
        return drives

    def _opened(self, needed: str = "train") -> list[Drive]:
        fetch_whole(self.folder)
        splits = None if self.splits is None else Path(self.splits)
        return at_one_rate(open_drives(self.folder, self.actions, needed, splits), self.fps)

    def action_names(self, drives: Sequence[Drive]) -> tuple[str, ...]:
        """Columns that a model reads, in the order of the first drive.

        Raises:
            BadInput: the drives have columns, but none in common.
        """
        if self.actions is not None:
            return tuple(name for name in self.actions if name not in OUTCOMES)
        common = set.intersection(*(set(drive.action_names) for drive in drives))
        if not common and any(drive.action_names for drive in drives):
            some = next(drive for drive in drives if drive.action_names)
            other = next(d for d in drives if not set(d.action_names) & set(some.action_names))
            raise BadInput(
                f"{other.path}: has {_columns(other)}, {some.path} has {_columns(some)}, and no "
                "column is in all drives; take drives of one kind, or no columns: "
                "data.source.actions=[]"
            )
        # A clock or a row's number explains no frame; a model would read the place from it.
        return tuple(n for n in drives[0].action_names if n in common and is_action(n))

    def columns(self, drives: Sequence[Drive]) -> tuple[str, ...]:
        """Columns that a token store keeps: those of a model, then rewards that all drives have.

        Raises:
            BadInput: as `action_names`.
        """
        outcomes = (n for n in OUTCOMES if all(n in drive.action_names for drive in drives))
        return (*self.action_names(drives), *outcomes)

    def _say_left_out(self, drives: Sequence[Drive]) -> None:
        """Print the columns that are unused because a drive lacks them."""
        used = self.action_names(drives)
        for drive in drives if self.actions is None else ():
            left = [name for name in drive.action_names if name not in used and is_action(name)]
            if left:
                lacks = next(other for other in drives if left[0] not in other.action_names)
                print(
                    f"note: the action column{'s' * (len(left) > 1)} {', '.join(left)} of "
                    f"{drive.path} and others are left out, for {lacks.path} has {_columns(lacks)}"
                )
                return

    def _judge_embedded_actions(self) -> tuple[str, ...]:
        """The columns to use of the embedded drives; BadInput for one that they lack."""
        columns = columns_of(self.carracing)
        names = ACTION_NAMES if self.actions is None else tuple(self.actions)
        missing = [name for name in names if name not in columns]
        if missing:
            raise BadInput(
                f"data.source.actions={list(names)}: the embedded drives have no column "
                f"{missing[0]!r}; there are: {', '.join(columns)}"
            )
        return tuple(name for name in names if name not in OUTCOMES)

    def planned(self) -> tuple[float, tuple[str, ...], bool]:
        """Frame rate, action columns, and whether there are captions; makes no drives.

        Raises:
            BadInput: as `open`, or a column that the embedded drives lack.
        """
        if not self.embedded:
            drives = self._opened()
            captioned = any(drive.captions for drive in drives)
            return common_rate(drives), self.action_names(drives), captioned
        return self.fps or self.carracing.fps, self._judge_embedded_actions(), False


def _columns(drive: Drive) -> str:
    return ", ".join(drive.action_names) or "none"


def drive_digests(drives: Sequence[Drive], split: str | None = None) -> dict[str, str]:
    """Digest of the content and split of every drive, by id; equal for a copy.

    Args:
        split: as if all were in this split.
    """
    return {d.id: _sha256([split or d.split, d.digest]) for d in drives}


def drives_hash(drives: Sequence[Drive]) -> str:
    """sha256 over names, splits and contents: changes when any drive changes."""
    return _sha256(sorted(drive_digests(drives).items()))


def dates_hash(drives: Sequence[Drive]) -> str:
    """The `drives_hash` of release 0.1, over sizes and dates; finds the stores of that release."""
    entries = []
    for drive in drives:
        files = [drive.source] if isinstance(drive.source, Path) else drive.source
        files = [*files, drive.path / "drive.json", *sorted(drive.path.glob("actions.*"))]
        for file in files:
            stat = file.stat()
            entries.append([drive.id, file.name, stat.st_size, stat.st_mtime_ns])
    return _sha256(entries)


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


class TokenSource(TokenSourceConfig):
    """Existing tokens; see `TokenSourceConfig`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(("store", *TOKEN_FORMATS), "data.", format=self.format)
        if self.format != "store" and is_url(self.root):
            raise BadInput(
                f"data.root={self.root}: files of {self.format} are read from a folder; fetch "
                "them first, or give the URL of a token store"
            )

    def open(self, on_corrupt: str = "stop") -> TokenStore:
        """The store, converted first if needed (`on_corrupt`: see `TokenStore`).

        Raises:
            BadInput: nothing is there, or its tokens do not fit the format.
        """
        root = existing_root(folder_of(self.root, Path(self.cache), self.remote_cache_gb))
        if self.format == "store":
            return TokenStore(root, on_corrupt=on_corrupt)
        format, folder = TOKEN_FORMATS[self.format], Path(self.cache) / "tokens"
        files, cut = format.files(root), format.cut(self.num_train, self.num_test)
        name, ends = f"{self.format}-{root.stem}", "".join(f"-{n}" for n in cut.values())
        key = content_key(self.format, files, folder)[:12]
        before = folder / f"{name}-{files_key(files)[:8]}{ends}"  # of release 0.1
        found = [
            *folder.glob(f"{self.format}-*-{key}{ends}"),
            *([before] if before.exists() else []),
        ]
        out = found[0] if found else folder / f"{name}-{key}{ends}"
        store = format.convert(root, out, **cut)
        return store if on_corrupt == "stop" else TokenStore(out, on_corrupt=on_corrupt)

    def planned(self) -> tuple[TokenSpec, tuple[str, ...], bool]:
        """Spec, action columns, and whether there are captions; converts nothing.

        Raises:
            BadInput: nothing there.
        """
        root = existing_root(folder_of(self.root, Path(self.cache), self.remote_cache_gb))
        if self.format == "store":
            store = TokenStore(root, verify=False)
            return store.spec, store.action_names, store.captioned
        return *TOKEN_FORMATS[self.format].plan(root), False


def trained_on(manifest: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """The source in the config of a checkpoint; None where it names none.

    Args:
        where: the manifest, for messages.

    Raises:
        BadInput: it has another form.
    """
    data = (manifest.get("config") or {}).get("data")
    source = data.get("source") if isinstance(data, dict) else data
    if source is not None and not isinstance(source, dict):
        raise BadInput(f"{where}: config.data.source={str(source)[:60]}: should be an object")
    return source


def source_from_dict(
    values: Any, where: str = "data", more: Sequence[type[TokenSource]] = ()
) -> DriveSource | TokenSource:
    """Rebuild a source from a saved config, without instantiating arbitrary class names.

    Args:
        where: origin of the values, for messages.
        more: kinds of other packages.

    Raises:
        BadInput: an unknown source or an invalid setting.
    """
    kinds = {kind.__name__: kind for kind in (DriveSource, TokenSource, *more)}
    name = class_name(values)
    if name not in kinds:
        raise BadInput(f"{where}: names an unknown data source {name[:80]!r}; give data.root")
    fields = without_targets(values)
    # Validated, then built from the raw values: folder names differ between 30 and 30.0.
    judged(kinds[name], fields, where)
    types = get_type_hints(kinds[name])
    parts = {
        key: _part(types[key], value) for key, value in fields.items() if isinstance(value, dict)
    }
    return kinds[name](**fields | parts)


def _part(kind: type, values: dict[str, Any]) -> Any:
    """A dataclass inside of a source; JSON has lists for its tuples."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def class_name(values: Any) -> str:
    """Class name of the source; its module may have another name today."""
    target = values.get("_target_") if isinstance(values, Mapping) else values
    return str(target).rpartition(".")[2]


def without_targets(values: dict[str, Any]) -> dict[str, Any]:
    """A saved config without Hydra's class names."""
    return {
        key: without_targets(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key != "_target_"
    }
