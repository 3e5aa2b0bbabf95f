"""Search: every pair of drives in different splits that shows the same footage.

Hashes find equal files. Prints find others: sorted keys give pairs of samples, pairs vote for
shifts in time, and shifts are fitted and measured. Time grows with the numbers of samples and of
likely shifts, never with the number of pairs of drives.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drives.drive import Drive
from drives.duplicates.likeness import MAX_RATIO
from drives.duplicates.match import Duplicate, Matcher
from drives.duplicates.prints import VERSION, Print, prints_of, token_prints
from drives.duplicates.votes import guesses_of
from drives.splits.base import SPLITS
from drives.splits.footage import Footage, read_entry
from drives.tokens.store import TokenStore
from training.disk.judging import judged
from training.disk.records import read_record, write_record
from training.errors import BadInput

# Between the copies and the look-alikes that docs/leakage.md lists.
MAX_TOKEN_RATIO = 0.6  # tokens change more than pixels when a video is encoded again
MIN_S = 4.0
MAX_STEPS = 10**7  # of a token store: all of its tokens are read


@dataclass(frozen=True)
class _Answer:
    pairs: tuple[Duplicate, ...]


def duplicates_among(prints: Sequence[Print]) -> list[Duplicate]:
    """All pairs, the most alike first."""
    ordered = sorted(prints, key=lambda one: _by_split(one.footage))
    lengths = {one.footage.drive: len(one.pictures) * one.every for one in ordered}
    found = equal_footage([one.footage for one in ordered], lengths)
    known = {(pair.a, pair.b) for pair in found}
    usable = [one for one in ordered if len(one.pictures) > 1]
    if len({one.footage.split for one in usable}) > 1:
        limit = MAX_RATIO if usable[0].pictures.ndim > 2 else MAX_TOKEN_RATIO
        near = Matcher(usable, limit, MIN_S).first_matches(guesses_of(usable))
        found += [pair for pair in near if (pair.a, pair.b) not in known]
    return sorted(found, key=lambda pair: pair.ratio)


def equal_footage(footage: Sequence[Footage], lengths: dict[str, int]) -> list[Duplicate]:
    """Pairs that share recorded frames, by hashes alone; `footage` is in the order of SPLITS."""
    by_recording: dict[str, list[Footage]] = defaultdict(list)
    found = []
    for one in footage:
        mine = read_entry(one.content)
        for other in by_recording[mine.recording]:
            theirs = read_entry(other.content)
            if other.split != one.split and mine.overlap(theirs):
                names = (other.drive, one.drive, other.split, one.split)
                a, b = ((0, lengths[each.drive] - 1) for each in (other, one))
                found.append(Duplicate(*names, a, b))
        by_recording[mine.recording].append(one)
    return found


def search_drives(
    drives: Sequence[Drive], cache: Path, on_corrupt: str = "stop"
) -> list[Duplicate]:
    """Pairs among drives; prints and the answer are kept below `cache`.

    Args:
        on_corrupt: see `prints_of`.
    """
    marks = sorted({drive.rate_mark for drive in drives} - {""})
    kept = _answer_file([drive.footage for drive in drives], cache, marks)
    if kept.exists():
        return _kept(kept)
    prints = prints_of(drives, cache, on_corrupt)
    found = duplicates_among(prints)
    return _keep(kept, found) if len(prints) == len(drives) else found


def search_store(store: TokenStore, cache: Path) -> list[Duplicate]:
    """The same among encoded drives, by their tokens; the answer is kept below `cache`.

    Of a store of more than `MAX_STEPS`, recordings are compared by their hashes alone.
    """
    footage = store.footage()
    lengths = {drive.id: drive.num_steps for drive in store.all}
    if (total := sum(lengths.values())) > MAX_STEPS:
        print(
            f"note: {store.root}: {total} steps are too many to compare their tokens before a run; "
            "only drives of one recording are found"
        )
        return equal_footage(sorted(footage, key=_by_split), lengths)
    kept = _answer_file(footage, cache)
    return _kept(kept) if kept.exists() else _keep(kept, duplicates_among(token_prints(store)))


def _by_split(one: Footage) -> tuple[int, str]:
    return SPLITS.index(one.split), one.drive


def _answer_file(footage: Sequence[Footage], cache: Path, marks: Sequence[str] = ()) -> Path:
    asked: list[Any] = sorted([one.drive, one.split, one.content] for one in footage)
    asked += [VERSION, MAX_RATIO, MAX_TOKEN_RATIO, MIN_S, *marks]
    name = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    return cache / "duplicates" / f"{name}.json"


def _keep(file: Path, found: list[Duplicate]) -> list[Duplicate]:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_record(file, {"pairs": [asdict(pair) for pair in found]})
    return found


def _kept(file: Path) -> list[Duplicate]:
    try:
        return list(judged(_Answer, read_record(file), str(file)).pairs)
    except BadInput as error:
        raise BadInput(f"{error}; remove the file, and it is searched again") from error
