"""How often each window is trained on: the weights of a mixture's parts, and balance."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view

from drives.clips.balance import joint_weights
from drives.clips.config import BalanceConfig
from drives.tokens.drive import TokenDrive
from drives.tokens.mixed import MixedStore
from drives.tokens.store import TokenStore
from training.errors import BadInput
from training.loading.order import Weights


def window_weights(
    store: TokenStore,
    drives: Sequence[TokenDrive],
    counts: Sequence[int],
    num_steps: int,
    balance: BalanceConfig,
) -> Weights | None:
    """Sampling weights of all windows, drive after drive; None where all are alike.

    Args:
        counts: number of windows of each drive; window s begins at step s.

    Raises:
        BadInput: a feature is no action column, or a part of the mixture has no window.
    """
    of_parts = isinstance(store, MixedStore) and bool(store.part_weights)
    if not of_parts and not balance.features:
        return None
    weights = np.ones(sum(counts))
    if isinstance(store, MixedStore) and of_parts:
        weights *= _of_parts(store, drives, counts)
    if balance.features:
        for name in balance.features:
            if name not in store.action_names:
                raise BadInput(
                    f"data.balance.features: {name!r} is no action column of {store.root}; there "
                    f"are {', '.join(store.action_names)}"
                )

        def means(name: str) -> Float[np.ndarray, " window"]:
            """The mean of a column over the rows of each window."""
            column = store.action_names.index(name)
            found = [
                sliding_window_view(drive.actions[:, column].astype(np.float64), num_steps).mean(
                    -1
                )[:count]
                for drive, count in zip(drives, counts, strict=True)
                if count
            ]
            return np.concatenate(found)

        weights *= joint_weights(balance, means, len(weights))
    return None if (weights == weights[0]).all() else Weights(weights)


def _of_parts(
    store: MixedStore, drives: Sequence[TokenDrive], counts: Sequence[int]
) -> Float[np.ndarray, " window"]:
    """Weights with which the windows of a part together have the part's weight."""
    parts = [drive.id.partition("/")[0] for drive in drives]
    there = {name: 0 for name in store.parts}
    for part, count in zip(parts, counts, strict=True):
        there[part] += count
    for name, count in there.items():
        if not count:
            raise BadInput(
                f"{store.parts[name].root}: has no train window of this length; leave it out of "
                "data.source.roots"
            )
    each = [store.part_weights[part] / there[part] for part in parts]
    return np.repeat(each, counts)
