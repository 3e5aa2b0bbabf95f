"""Imports foreign recordings: `python -m drives.importers --help`."""

import argparse
import logging
import os
import sys
from pathlib import Path

from drives.importers.base import check_options, import_recordings
from drives.importers.candidates import read_candidates
from drives.importers.flags import add_flags, options_of
from drives.importers.formats import IMPORTED_FORMATS, RECORDING_FORMATS, TOKEN_FORMATS
from drives.tokens.store import TokenStore
from training.cli import bad_input_fails
from training.disk.places import writable_folder


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m drives.importers", description="Make drives.")
    formats = parser.add_subparsers(dest="format", required=True)
    for name, recorded in RECORDING_FORMATS.items():
        sub = formats.add_parser(name, help=recorded.text, description=recorded.text)
        sub.add_argument("src", type=Path, help="folder of the recordings")
        sub.add_argument("out", help="folder that gets the drives")
        sub.add_argument(
            "--size", nargs=2, type=int, metavar=("H", "W"), help="pixels of stored frames"
        )
        sub.add_argument(
            "--split",
            nargs=3,
            type=float,
            default=(0.8, 0.1, 0.1),
            metavar=("TRAIN", "VAL", "TEST"),
            help="shares of each recording, contiguous in time (default 0.8 0.1 0.1)",
        )
        add_flags(sub, recorded.options)
        text = (
            "stop: the first recording that cannot be used ends it; skip: it is left out and told"
        )
        sub.add_argument("--on-bad", choices=("stop", "skip"), default="stop", help=text)
        sub.add_argument("--num-workers", type=int, default=min(4, os.cpu_count() or 1))
    for name, imported in IMPORTED_FORMATS.items():
        sub = formats.add_parser(name, help=f"{imported.text}: makes a token store")
        sub.add_argument("src", type=Path, help="file or folder of the recordings, or a name")
        sub.add_argument("out", help="folder that gets the token store")
        add_flags(sub, imported.options)
    for name, format in TOKEN_FORMATS.items():
        sub = formats.add_parser(name, help=f"{format.text}: makes a token store")
        sub.add_argument("src", type=Path, help="file or folder of the recordings")
        sub.add_argument("out", help="folder that gets the token store")
        if format.is_cut:
            text = "of a single recording: first frames"
            sub.add_argument("--num-train", type=int, default=1000, help=text)
            text = "of a single recording: last frames"
            sub.add_argument("--num-test", type=int, default=200, help=text)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Where the input is unusable: the message alone and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = parse(arguments)
    with bad_input_fails():
        out = writable_folder("out", args.out)
        if args.format in {**TOKEN_FORMATS, **IMPORTED_FORMATS}:
            store = _converted(args, out)
            print(*(f"{out}: {entry}" for entry in store.manifest["drives"]), sep="\n")
            return
        sizes = (tuple(args.size) if args.size else None, tuple(args.split), args.num_workers)
        check_options(*sizes)
        recorded = RECORDING_FORMATS[args.format]
        candidates = recorded.find(args.src, options_of(args, recorded.options))
        recordings, left_out = read_candidates(candidates, args.on_bad, args.num_workers)
        skipping = left_out if args.on_bad == "skip" else None
        paths = import_recordings(recordings, out, *sizes, skipping)
        print(*paths, sep="\n")
        for reason in left_out:
            print(f"left out: {reason}", file=sys.stderr)
        if left_out:
            print(f"{len(left_out)} left out", file=sys.stderr)


def _converted(args: argparse.Namespace, out: Path) -> TokenStore:
    if args.format in IMPORTED_FORMATS:
        imported = IMPORTED_FORMATS[args.format]
        return imported.convert(args.src, out, options_of(args, imported.options))
    format = TOKEN_FORMATS[args.format]
    cut = format.cut(args.num_train, args.num_test) if format.is_cut else {}
    return format.convert(args.src, out, **cut)


if __name__ == "__main__":
    main()
