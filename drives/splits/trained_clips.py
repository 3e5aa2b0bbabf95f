"""Refuses to judge a checkpoint on clips that it was trained on.

It compares content, not names, so it also finds a renamed copy in another split.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drives.drive import Drive
from drives.sources import drive_digests
from drives.splits.base import of_split
from drives.splits.footage import Footage, shown_in
from drives.tokens.store import TokenStore
from training.checkpoints.same_data import noted_digests, short
from training.errors import BadInput

SHOWN = 3
ALLOW = "allow_train=true"  # on the command line, where a command has no other switch


def refuse_trained_clips(
    manifest: Mapping[str, Any],
    where: Path,
    split: str,
    store: TokenStore | None = None,
    drives: Sequence[Drive] = (),
    allow: bool = False,
    switch: str = ALLOW,
) -> list[str]:
    """The drives of `split` that the checkpoint was trained on; none unless `allow`.

    Args:
        manifest: of the checkpoint.
        where: the checkpoint's folder, for messages and for the `data.json` of its run.
        store, drives: of the evaluation; drives tell more than a store.
        allow: print the drives and go on.
        switch: the user's setting for `allow`.

    Raises:
        BadInput: it was trained on a drive of the split.
    """
    if drives:
        shown = [drive.footage for drive in of_split(drives, split, str(drives[0].path.parent))]
    else:
        assert store is not None
        shown = store.footage(split)
    found = _trained_on(manifest, where, shown, store, drives)
    if found is None:
        print(f"note: {where}: does not say what it was trained on; the clips may be among it")
        return []
    if found:
        names = ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
        said = f"{len(found)} of {len(shown)} drives of the {split} split ({names})"
        if not allow:
            raise BadInput(
                f"{where}: was trained on {said}, so its scores there say nothing; choose another "
                f"split or other data, or give {switch} to see them all the same"
            )
        print(f"warning: {where}: was trained on {said}; {switch} lets it be judged there")
    elif manifest.get("run", {}).get("validated_on") == split == "test":
        print(
            f"note: {where}: had no val drives and was validated on test; what was chosen by "
            "validation was chosen on these clips"
        )
    return found


def _trained_on(
    manifest: Mapping[str, Any],
    where: Path,
    shown: Sequence[Footage],
    store: TokenStore | None,
    drives: Sequence[Drive],
) -> list[str] | None:
    """Ids of the drives shown that were trained on; None if unknown."""
    known = manifest.get("run", {}).get("train_footage")
    if known is not None:
        return shown_in(shown, known)
    # Older runs list digests of drives and splits in data.json.
    digests = noted_digests(where.parent.parent if where.parent.name == "checkpoints" else where)
    if not digests:
        return None
    as_train = drive_digests(drives, "train") if store is None else store.digests("train")
    return [one.drive for one in shown if short(as_train[one.drive]) in digests]
