"""The statistics of a store's actions, in the notes of its manifest."""

from drives.actions.statistics import ActionStatistics, statistics_of
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter

NOTE = "action_statistics"


def note_statistics(writer: TokenStoreWriter) -> None:
    """Note the statistics of the train drives written so far; the last shard's note remains.

    Nothing is noted where one of them is damaged: the note would pass as that of all.
    """
    store = TokenStore(writer.root, on_corrupt="skip")
    if "train" not in store.catalog.splits():
        return
    found = _of_train(store)
    if not any(drive.damage for drive in store.drives("train")):
        writer.note(NOTE, {"num_drives": len(store.catalog), **found.to_json()})


def action_statistics(store: TokenStore) -> ActionStatistics | None:
    """Of the train drives: as noted, or read anew for a store that has no note of all its drives.

    Damaged drives are left out. None where there are no train drives.

    Raises:
        BadInput: the note is damaged.
    """
    noted = store.manifest.get("notes", {}).get(NOTE)
    if isinstance(noted, dict) and noted.get("num_drives") == len(store.catalog):
        return ActionStatistics.from_json(noted, str(store.root / "manifest.json"))
    return _of_train(store) if "train" in store.catalog.splits() else None


def _of_train(store: TokenStore) -> ActionStatistics:
    drives = [drive.actions for drive in store.drives("train") if not drive.damage]
    return statistics_of(store.action_names, drives)
