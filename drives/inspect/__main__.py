"""What a folder is and what is wrong with it: python -m drives.inspect PATH

PATH holds drives, is a token store, or holds recordings of a format that drives.importers knows.
Exit code 2 where something there cannot be used.
"""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from drives.duplicates.search import search_drives, search_store
from drives.folder import open_drives
from drives.inspect.findings import Findings, inspect
from drives.inspect.showing import as_text, contact_sheet, write_page
from drives.inspect.takes import DRIVES, STORE, open_path
from drives.tokens.store import TokenStore
from training.cli import bad_input_fails
from training.disk.places import refuse_existing, writable_file, writable_folder
from training.disk.plain_json import to_json
from training.errors import BadInput
from training.ranges import at_least, positive


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    what = "Say what a folder is and what is wrong with it."
    parser = argparse.ArgumentParser("python -m drives.inspect", description=what)
    parser.add_argument("path", type=Path, help="drives, a token store, or foreign recordings")
    text = "recordings that are opened, evenly chosen (default 100)"
    parser.add_argument("--most", type=int, default=100, help=text)
    text = "of a format that does not say its rate, as the importer takes it"
    parser.add_argument("--fps", type=float, help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="write a contact sheet")
    parser.add_argument("--no-lag", action="store_true", help="do not look at the frames' motion")
    text = "search for near-duplicates across splits; slow: every drive is decoded"
    parser.add_argument("--duplicates", action="store_true", help=text)
    parser.add_argument("--cache", type=Path, default=Path("data"), help="keeps prints of frames")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Prints what was found; where nothing known lies at the path, the message alone."""
    logging.basicConfig(level=logging.ERROR)  # what adapters tell of each file is not asked here
    args = parse(arguments)
    with bad_input_fails():
        at_least(1, "--", most=args.most)
        if args.fps is not None:
            positive("--", fps=args.fps)
        _judge_places(args)
        opened = open_path(args.path, args.most, args.fps)
        found = inspect(args.path, opened, with_lag=not args.no_lag)
        if args.duplicates:
            found = _with_duplicates(found, args.path, args.cache)
        print(as_text(found))
        for file in filter(None, (args.json, args.html, args.sheet)):
            file.parent.mkdir(parents=True, exist_ok=True)
        if args.json:
            args.json.write_text(to_json(found.to_json()) + "\n")
        if args.html:
            write_page(args.html, found, opened.takes)
        if args.sheet:
            contact_sheet(args.sheet, opened.takes)
    if found.problems:
        sys.exit(2)


def _judge_places(args: argparse.Namespace) -> None:
    """BadInput, before the work, where a file cannot be written or would replace another."""
    taken: dict[Path, str] = {}
    for flag, path in (("--json", args.json), ("--html", args.html), ("--sheet", args.sheet)):
        if path is None:
            continue
        file = writable_file(flag, path)
        refuse_existing(flag, file)
        if flag == "--sheet" and file.suffix.lower() != ".png":
            raise BadInput(f"{flag}={file}: is a picture; give it a name that ends in .png")
        other = taken.setdefault(file.resolve(), flag)
        if other != flag:
            raise BadInput(f"{flag}={file}: is that of {other} as well; name two files")
    if args.duplicates:
        writable_folder("--cache", args.cache)


def _with_duplicates(found: Findings, path: Path, cache: Path) -> Findings:
    try:
        if found.kind == STORE:
            pairs = search_store(TokenStore(path), cache)
        elif found.kind == DRIVES and not (path / "drive.json").exists():
            pairs = search_drives(open_drives(path), cache)
        else:
            return found
    except BadInput as error:
        said = f"duplicates were not searched for: {error}"
        return replace(found, problems=[*found.problems, said])
    told = [f"the same footage is in two splits: {pair}" for pair in pairs]
    return replace(found, warnings=[*found.warnings, *told])


if __name__ == "__main__":
    main()
