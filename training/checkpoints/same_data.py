"""Whether a run that goes on reads the data that it began with: by content, wherever it lies.

`data.json` in the run folder has a digest of every drive, so that the one that changed is named.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.disk.records import read_record, write_record
from training.errors import BadInput
from training.machine import launched_rank

FILE = "data.json"
BY = "content"  # what `data_hash` is of; releases that took dates into it did not say
DIGITS = 12
SHOWN = 3


def data_facts(datamodule: Any) -> dict[str, str]:
    """What run.json and the checkpoints say of the data."""
    return {"data_hash": datamodule.data_hash, "data_hash_by": BY}


def judge_data(folder: Path, before: Mapping[str, Any], datamodule: Any, other_data: bool) -> None:
    """Judge the data of a run that goes on; what there is to say of it is printed.

    Args:
        folder: of the run.
        before: facts of the checkpoint that it goes on from.
        other_data: the user wants to go on with other data.

    Raises:
        BadInput: the data differs; the drives that do are named.
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
    """Note what each drive is; OSError where it cannot be written."""
    write_record(folder / FILE, {"drives": _short(datamodule.data_digests())})


def _changes(folder: Path, digests: Mapping[str, str]) -> str:
    """Which drives are gone, new or changed, a few of each."""
    try:
        then, now = read_record(folder / FILE)["drives"], _short(digests)
    except BadInput:
        return f"no {FILE} there says which drives"
    kinds = {
        "gone": then.keys() - now.keys(),
        "new": now.keys() - then.keys(),
        "changed": {name for name in then.keys() & now.keys() if then[name] != now[name]},
    }
    told = [f"{_listed(sorted(names))} {kind}" for kind, names in kinds.items() if names]
    return ", ".join(told) or "its tokenizer, columns or order"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _short(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: digest[:DIGITS] for name, digest in sorted(digests.items())}
