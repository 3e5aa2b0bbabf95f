"""Near-duplicates across splits: python -m drives.duplicates FOLDER

FOLDER holds drives, or is a token store. Prints one line per pair and writes their pictures; exit
code 2 where there is any.
"""

import argparse
from pathlib import Path

from drives.duplicates.gate import STOP, refuse_duplicates
from drives.folder import open_drives
from drives.splits.base import SPLITS
from drives.tokens.manifest import MANIFEST
from drives.tokens.store import TokenStore
from training.cli import bad_input_fails


def main() -> None:
    what = "Find near-duplicates across the splits of drives."
    parser = argparse.ArgumentParser("python -m drives.duplicates", description=what)
    parser.add_argument("root", type=Path, help="folder of drives, or a token store")
    parser.add_argument("--splits", type=Path, help="file of python -m drives.splits")
    parser.add_argument("--cache", type=Path, default=Path("data"), help="keeps prints, pictures")
    args = parser.parse_args()
    with bad_input_fails():
        is_store = (args.root / MANIFEST).exists()
        data = TokenStore(args.root) if is_store else open_drives(args.root, splits=args.splits)
        refuse_duplicates(data, args.cache, STOP, "data.duplicates")
        drives = data.all if isinstance(data, TokenStore) else data
        counts = ", ".join(f"{sum(d.split == name for d in drives)} {name}" for name in SPLITS)
        print(f"{args.root}: no near-duplicates across splits ({counts})")


if __name__ == "__main__":
    main()
