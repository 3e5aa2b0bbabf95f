"""A mixture of token stores as a source: `data=mixture`."""

from pathlib import Path

from drives.config import MixtureSourceConfig
from drives.remote.mirror import folder_of
from drives.sources import TokenSource
from drives.tokens.mixed import MixedStore, part_names
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore


class MixtureSource(MixtureSourceConfig, TokenSource):
    """Several token stores; see `MixtureSourceConfig`."""

    def open(self, on_corrupt: str = "stop") -> TokenStore:
        """The stores as one.

        Raises:
            BadInput: one cannot be opened, or they do not go together (`MixedStore`).
        """
        return self._opened(True, on_corrupt)

    def planned(self) -> tuple[TokenSpec, tuple[str, ...], bool]:
        """Spec, common action columns, and whether there are captions."""
        store = self._opened(False, "stop")
        return store.spec, store.action_names, store.captioned

    def _opened(self, verify: bool, on_corrupt: str) -> MixedStore:
        folders = [folder_of(r, Path(self.cache), self.remote_cache_gb) for r in self.roots]
        stores = [TokenStore(folder, verify, on_corrupt) for folder in folders]
        return MixedStore(dict(zip(part_names(self.roots), stores, strict=True)), self.weights)
