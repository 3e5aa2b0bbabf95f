"""The data module of world models: windows of a token store, for training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from drives.drive import Drive
from drives.duplicates.gate import refuse_duplicates
from drives.sources import DriveSource, TokenSource
from drives.splits.base import while_training
from drives.splits.footage import split_facts
from drives.tokens.store import TokenStore
from tokenizer.encode import TOKENIZER_NOTE
from tokenizer.load import Tokenizer, load_tokenizer
from training.loading.loader import OrderedLoader, fixed_loader
from training.loading.order import DataOrder
from worldmodel.action_ranges import action_facts
from worldmodel.config import WindowsConfig
from worldmodel.stores import open_store
from worldmodel.window_weights import window_weights
from worldmodel.windows import TokenClip, TokenWindows, collate


class TokenDataModule(L.LightningDataModule):
    """Windows of a token store, in the exact order of `DataOrder`.

    Args:
        settings: as those of `WindowsConfig`.
    """

    def __init__(
        self, source: DriveSource | TokenSource, context_steps: int, **settings: Any
    ) -> None:
        super().__init__()
        config = WindowsConfig(source=source, context_steps=context_steps, **settings)
        self.on_corrupt, self.duplicates = config.on_corrupt, config.duplicates
        self.source, self.tokenizer_name = source, config.tokenizer
        self.context_steps, self.batch_size = context_steps, config.batch_size
        self.num_val_windows, self.num_workers = config.num_val_windows, config.num_workers
        self.seed, self.encode, self.balance = config.seed, config.encode, config.balance
        self.store: TokenStore
        self.drives: list[Drive] = []

    def prepare_data(self) -> None:
        """Make and check the token store; safe to call again."""
        if hasattr(self, "store"):
            return
        opened = None
        if isinstance(self.source, DriveSource):
            opened = load_tokenizer(self.tokenizer_name)  # refused before drives are made
            self.drives = self.source.open()
            self._refuse_duplicates(self.drives)
        how = (self.tokenizer_name, self.encode, self.on_corrupt)
        store = open_store(self.source, *how, opened=opened, drives=self.drives or None)
        if not self.drives:
            self._refuse_duplicates(store)
        self.store = store

    def _refuse_duplicates(self, data: Sequence[Drive] | TokenStore) -> None:
        cache = Path(self.source.cache)
        refuse_duplicates(data, cache, self.duplicates, "data.duplicates")

    @property
    def fps(self) -> float:
        """Frames per second of the encoded frames."""
        return self.store.spec.fps

    @property
    def data_hash(self) -> str:
        return self.store.hash

    def data_digests(self) -> dict[str, str]:
        """Digest of every drive, so that a resumed run can name the drive that changed."""
        return self.store.digests()

    def provenance(self) -> dict[str, Any]:
        """Facts about data, split, licences and the tokenizer for the checkpoints."""
        stored = self.store.footage()
        facts = split_facts([drive.footage for drive in self.drives] or stored)
        # A store of before knows its drives by its own files.
        facts["train_footage"] = sorted(
            {*facts["train_footage"], *split_facts(stored)["train_footage"]}
        )
        facts["train_steps"] = sum(drive.num_steps for drive in self.store.drives("train"))
        made_by = self.store.manifest.get("notes", {}).get(TOKENIZER_NOTE)
        return facts | ({"tokenizer": made_by} if made_by else {})

    def model_facts(self) -> dict[str, Any]:
        """Facts for the model's config."""
        facts = {"spec": self.store.spec, "action_names": self.store.action_names}
        actions = action_facts(self.store.drives("train"))
        return {**facts, "captioned": self.store.captioned, **actions}

    def planned_facts(self) -> dict[str, Any]:
        """The same as `model_facts`, from manifests alone, before any data is made.

        Ranges and moments of the actions are made up: no cost depends on them.
        """
        if isinstance(self.source, TokenSource):
            spec, names, captioned = self.source.planned()
        else:
            fps, names, captioned = self.source.planned()
            spec = load_tokenizer(self.tokenizer_name).spec(fps / self.encode.every)
        zeros, ones = (0.0,) * len(names), (1.0,) * len(names)
        facts = {"spec": spec, "action_names": names, "captioned": captioned}
        return {**facts, "action_ranges": (zeros, ones), "action_moments": (zeros, ones)}

    def planned_batch(self, facts: dict[str, Any], size: int) -> TokenClip:
        """A batch of `size` windows with the right shapes and no content."""
        grid = facts["spec"].grid
        rows = grid[1:] if grid[0] == 1 else (grid[0] * grid[1], grid[2])
        tokens = torch.zeros(size, self.context_steps, *rows, dtype=torch.int64)
        return TokenClip(tokens, torch.zeros(size, self.context_steps, len(facts["action_names"])))

    def loss_floors(self) -> dict[str, float]:
        """Nats per token that no model goes below, and of what; none where nobody knows."""
        known = getattr(self.source, "loss_floors", None)
        if known is None:
            return {}
        windows = self.dataset("val")
        return known(fixed_loader(windows, self.num_val_windows, self.batch_size, collate))

    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer that made the store; None where it is not at hand (foreign tokens)."""
        if isinstance(self.source, TokenSource):
            return None
        return load_tokenizer(self.tokenizer_name)

    def dataset(self, split: str, num_steps: int | None = None) -> TokenWindows:
        """Windows of the drives that a run trains on or validates on."""
        drives = while_training(self.store.all, split, str(self.store.root))
        return TokenWindows(drives, num_steps or self.context_steps)

    def train_dataloader(self) -> OrderedLoader:
        assert self.trainer is not None
        dataset = self.dataset("train")
        if dataset.num_short and self.trainer.is_global_zero:
            print(
                f"note: {dataset.num_short} of {len(dataset.drives)} train drives are shorter than "
                f"{self.context_steps} steps and are left out"
            )
        module: Any = self.trainer.lightning_module
        steps = self.trainer.max_steps * module.accumulate
        rank, world = self.trainer.global_rank, self.trainer.world_size
        counts = np.diff(dataset.ends, prepend=0).tolist()
        weights = window_weights(
            self.store, dataset.drives, counts, self.context_steps, self.balance
        )
        order = DataOrder(len(dataset), steps, self.batch_size, self.seed, rank, world, weights)
        return OrderedLoader(dataset, order, collate, self.num_workers, self.on_corrupt)

    def val_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        windows = self.dataset("val")
        return fixed_loader(
            windows, self.num_val_windows, self.batch_size, collate, self.on_corrupt, rank, world
        )
