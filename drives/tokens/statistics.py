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
    drives = store.drives("train")
    found = statistics_of(store.action_names, [drive.actions for drive in drives])
    if not any(drive.damage for drive in drives):
        writer.note(NOTE, {"num_drives": len(store.catalog), **found.to_json()})


def noted_statistics(store: TokenStore) -> ActionStatistics | None:
    """Of all train drives; None where there are none, or drives were written since the note.

    Raises:
        BadInput: the note is damaged.
    """
    noted = store.manifest.get("notes", {}).get(NOTE)
    if isinstance(noted, dict) and noted.get("num_drives") == len(store.catalog):
        return ActionStatistics.from_json(noted, str(store.root / "manifest.json"))
    return None
