"""Random states in the checkpoint: a resumed run draws the same numbers as an unbroken one."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch


class RandomStates(L.Callback):
    """Saves python, numpy and torch generators of every rank; restores them before a batch.

    Validations have their own generators and draw the same numbers each time, so training does
    not depend on validation.

    Ranks draw different numbers: their generators are seeded by (seed, rank). After a resume on
    another number of processes, all ranks are seeded by (seed, step, rank).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._pending: list[dict[str, Any]] | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._ranks = trainer.world_size
        if self._pending is None and trainer.global_rank:
            _seed(f"{self.seed}/{trainer.global_rank}")

    def state_dict(self) -> dict[str, Any]:
        mine = _states()
        if getattr(self, "_ranks", 1) == 1:
            return {"ranks": [mine]}
        everyone: list[Any] = [None] * self._ranks
        torch.distributed.all_gather_object(everyone, mine)
        return {"ranks": everyone}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._pending = state_dict.get("ranks", [state_dict])  # schema 1: one rank

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._training = _states()
        _seed(f"{self.seed}/validation/{trainer.global_rank}")

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        _restore(self._training)

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if self._pending is None:
            return
        states, self._pending = self._pending, None
        if len(states) == trainer.world_size:
            _restore(states[trainer.global_rank])
        else:
            _seed(f"{self.seed}/{trainer.global_step}/{trainer.global_rank}")


def _states() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {
        "python": random.getstate(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def _restore(state: dict[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if isinstance(state["cuda"], torch.Tensor) and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _seed(key: str) -> None:
    generator = random.Random(key)
    random.seed(generator.getrandbits(32))
    np.random.seed(generator.getrandbits(32))  # noqa: NPY002
    torch.manual_seed(generator.getrandbits(32))
