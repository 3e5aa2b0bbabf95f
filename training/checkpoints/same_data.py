"""Checks that a resumed run reads the same data, by content.

`data.json` in the run folder has a digest of every drive, so that a changed drive is named.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.disk.records import read_record, write_record
from training.errors import BadInput
from training.machine import launched_rank

FILE = "data.json"
BY = "content"  # input of `data_hash`; older releases hashed dates and lack this entry
DIGITS = 12
SHOWN = 3


def data_facts(datamodule: Any) -> dict[str, Any]:
    """Facts about the data for run.json and the checkpoints."""
    same = {"data_hash": datamodule.data_hash, "data_hash_by": BY}
    return same | datamodule.provenance()


def judge_data(folder: Path, before: Mapping[str, Any], datamodule: Any, other_data: bool) -> None:
    """Compare the data of a resumed run with that of its checkpoint; prints notes.

    Args:
        folder: of the run.
        before: facts of the resumed checkpoint.
        other_data: whether the user allows other data.

    Raises:
        BadInput: the data differs; the message names the drives.
    """
    if before.get("data_hash_by") != BY:
        _say(f"note: {folder}: of a release that compared no data; it is taken as the same")
        return
    if before["data_hash"] == datamodule.data_hash:
        return
    changes = _changes(folder, datamodule.data_digests())
    if not other_data:
        raise BadInput(
            f"{folder}: its run was trained on other data ({changes}); bring that back, choose "
            "another folder (run=runs/NAME), or go on with what is there now: other_data=true"
        )
    _say(f"warning: the data is not what the run began with ({changes}); it goes on with it")


def _say(message: str) -> None:
    if not launched_rank():
        print(message)


def write_digests(folder: Path, datamodule: Any) -> None:
    """Write the digest of each drive; OSError where that fails."""
    write_record(folder / FILE, {"drives": _short(datamodule.data_digests())})


def noted_digests(folder: Path) -> set[str]:
    """The digests in a run's `data.json`, as `short` has them; empty where it has none."""
    try:
        return set(read_record(folder / FILE)["drives"].values())
    except BadInput:
        return set()


def short(digest: str) -> str:
    return digest[:DIGITS]


def _changes(folder: Path, digests: Mapping[str, str]) -> str:
    """Names of missing, new and changed drives, a few of each."""
    try:
        then, now = read_record(folder / FILE)["drives"], _short(digests)
    except BadInput:
        return f"no {FILE} there says which drives"
    kinds = {
        "gone": then.keys() - now.keys(),
        "new": now.keys() - then.keys(),
        "changed": {name for name in then.keys() & now.keys() if then[name] != now[name]},
    }
    changes = [f"{_listed(sorted(names))} {kind}" for kind, names in kinds.items() if names]
    return ", ".join(changes) or "its tokenizer, columns or order"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _short(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: short(digest) for name, digest in sorted(digests.items())}
