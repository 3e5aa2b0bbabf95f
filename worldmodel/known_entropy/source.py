"""The known-entropy world as a data source (`data=known_entropy`); first use writes it."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from drives.sources import TokenSource
from drives.tokens.store import TokenSpec, TokenStore
from training.disk.leftovers import sweep_leftovers, written_whole
from training.errors import BadInput
from worldmodel.known_entropy.config import KnownEntropySourceConfig
from worldmodel.known_entropy.world import ACTION_NAMES, KnownEntropyWorld
from worldmodel.windows import TokenClip

NO_CONTENT = ("root", "cache", "format", "remote_cache_gb")  # settings that shape no token


class KnownEntropySource(KnownEntropySourceConfig, TokenSource):
    """Tokens of a `KnownEntropyWorld`, kept below `cache`; see `KnownEntropySourceConfig`."""

    @property
    def folder(self) -> Path:
        if self.root:
            return Path(self.root)
        settings = {k: v for k, v in asdict(self).items() if k not in NO_CONTENT}
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        return Path(self.cache) / "tokens" / f"known-entropy-{key}"

    def open(self, *args: Any) -> TokenStore:
        """The store; it is written first if it is missing, completely or not at all.

        Args:
            args: as those of `TokenSource.open`.
        Raises:
            BadInput: the store cannot be read, or `root` holds one of another world.
        """
        folder = self.folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not (folder / "manifest.json").exists():
                sweep_leftovers(folder.parent)
                world = KnownEntropyWorld(self.world)
                with written_whole(folder) as partial:
                    world.write_store(partial, self.num_train, self.num_test, self.steps, self.seed)
        store = TokenSource(str(folder)).open(*args)
        if store.spec != KnownEntropyWorld(self.world).spec:
            raise BadInput(
                f"data.root={folder}: holds tokens of {store.spec.tokenizer}, not of this world; "
                "give the world's own settings as data.world, or another folder"
            )
        return store

    def planned(self) -> tuple[TokenSpec, tuple[str, ...], bool]:
        """Spec, action columns, and False (no captions); writes nothing."""
        return KnownEntropyWorld(self.world).spec, ACTION_NAMES, False

    def loss_floors(self, batches: Iterable[TokenClip]) -> dict[str, float]:
        """Lowest possible losses in nats per token: of the world, and of these batches.

        A finite sample is easier or harder than the world by chance. So compare a measured loss
        with the loss of the optimal predictor on the same windows.
        """
        world = KnownEntropyWorld(self.world)
        paid = [world.optimal_nll(b.tokens.numpy(), b.actions.numpy()).ravel() for b in batches]
        return {
            "entropy of the world": world.entropy(),
            "optimal predictor on these windows": float(np.concatenate(paid).mean()),
        }
