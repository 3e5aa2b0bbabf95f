"""Several token stores read as one; the weight of each says how often its windows come."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from drives.captions import Caption
from drives.splits.footage import Footage
from drives.tokens.drive import MappedDrive, TokenDrive, actions_among, chosen
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from training.errors import BadInput


class MixedStore(TokenStore):
    """Stores of one `TokenSpec`; a drive's id is `<part>/<id>`, its actions the common columns.

    Args:
        parts: by name.
        weights: shares of the windows that are trained on, by part; empty: every window counts
            alike.

    Raises:
        BadInput: specs differ (names the field and both stores), or no action column is common.
    """

    def __init__(self, parts: dict[str, TokenStore], weights: Sequence[float] = ()) -> None:
        self.parts, self.part_weights = parts, dict(zip(parts, weights, strict=bool(weights)))
        stores = list(parts.values())
        first = self.spec_of(stores)
        self.spec, self.root = first.spec, first.root
        self.on_corrupt = first.on_corrupt
        self.columns = self._common_columns(stores)
        self.action_names = actions_among(self.columns)
        self.manifest = {"spec": first.manifest["spec"], "notes": first.manifest.get("notes", {})}
        self._stores = stores
        self._starts = [0, *accumulate(len(store.catalog) for store in stores)]
        self._all = [
            MappedDrive(f"{name}/{drive.id}", drive.split, self, start + row)
            for (name, store), start in zip(parts.items(), self._starts[:-1], strict=True)
            for row, drive in enumerate(store.all)
        ]
        self._by_id = {drive.id: drive for drive in self._all}

    @staticmethod
    def spec_of(stores: Sequence[TokenStore]) -> TokenStore:
        """The first store; BadInput where another one's tokens mean something else."""
        first, *others = stores
        for other in others:
            for field in fields(TokenSpec):
                ours, theirs = (getattr(s.spec, field.name) for s in (first, other))
                if ours != theirs:
                    raise BadInput(
                        f"{other.root}: {field.name} is {theirs}, that of {first.root} is {ours}; "
                        "a mixture has one tokenizer and one rate: encode the drives alike"
                    )
        return first

    @staticmethod
    def _common_columns(stores: Sequence[TokenStore]) -> tuple[str, ...]:
        common = set.intersection(*(set(store.columns) for store in stores))
        names = tuple(name for name in stores[0].columns if name in common)
        if not names and any(store.columns for store in stores):
            told = "; ".join(f"{s.root}: {', '.join(s.columns) or 'none'}" for s in stores)
            raise BadInput(f"no action column is in all parts of the mixture ({told})")
        for store in stores:
            if left := [name for name in store.columns if name not in common]:
                print(f"note: {store.root}: its columns {', '.join(left)} are not in all parts")
        return names

    @property
    def all(self) -> list[TokenDrive]:
        return self._all

    def find(self, drive_id: str) -> TokenDrive | None:
        return self._by_id.get(drive_id)

    def footage(self, split: str | None = None) -> list[Footage]:
        found = [
            replace(entry, drive=f"{name}/{entry.drive}")
            for name, store in self.parts.items()
            for entry in store.footage()
            if split is None or entry.split == split
        ]
        if not found:
            self.drives(str(split))  # says what is there
        return found

    @property
    def captioned(self) -> bool:
        return any(store.captioned for store in self._stores)

    @property
    def hash(self) -> str:
        """sha256 over the parts' hashes and shares, whatever the parts are called."""
        total = sum(self.part_weights.values())
        shares = {name: float(weight) / total for name, weight in self.part_weights.items()}
        facts = [[store.hash, shares.get(name)] for name, store in self.parts.items()]
        text = json.dumps([asdict(self.spec), self.columns, facts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def digests(self, split: str | None = None) -> dict[str, str]:
        parts = self.parts.items()
        return {f"{n}/{id}": d for n, store in parts for id, d in store.digests(split).items()}

    @property
    def far(self) -> bool:
        return any(store.far for store in self._stores)

    def prefetch(self, rows: Iterable[int]) -> None:
        for row in rows:
            store, own = self._place(row)
            store.prefetch([own])

    def steps_of(self, row: int) -> int:
        store, own = self._place(row)
        return store.steps_of(own)

    def tokens_of(self, row: int) -> np.ndarray:
        store, own = self._place(row)
        return store.tokens_of(own)

    def columns_of(self, row: int) -> np.ndarray:
        store, own = self._place(row)
        return chosen(store.columns_of(own), store.columns, self.columns)

    def damage_of(self, row: int) -> str:
        store, own = self._place(row)
        return store.damage_of(own)

    def captions_of(self, row: int) -> tuple[Caption, ...]:
        store, own = self._place(row)
        return store.captions_of(own)

    def roads_of(self, row: int) -> str:
        store, own = self._place(row)
        return store.roads_of(own)

    def _place(self, row: int) -> tuple[TokenStore, int]:
        part = bisect_right(self._starts, row) - 1
        return self._stores[part], row - self._starts[part]


def part_names(roots: Sequence[str]) -> list[str]:
    """Short names of the parts: of their folders, with a number where one is taken."""
    names: list[str] = []
    for root in roots:
        name = Path(root).name or "root"
        free = (name, *(f"{name}-{number}" for number in range(2, len(roots) + 2)))
        names.append(next(one for one in free if one not in names))
    return names
