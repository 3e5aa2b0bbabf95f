"""Imports foreign recordings: `python -m drives.importers --help`."""

import argparse
import logging
import os
from pathlib import Path

from drives.importers import udacity, video_folder
from drives.importers.base import check_options, import_recordings
from drives.importers.token_formats import TOKEN_FORMATS
from training.cli import bad_input_fails
from training.disk.places import writable_folder

FORMATS = {
    "udacity": ("driving_log.csv and IMG/ of the Udacity simulator", udacity.find_recordings),
    "videos": ("videos with a table of actions beside each", video_folder.find_recordings),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m drives.importers", description="Make drives.")
    formats = parser.add_subparsers(dest="format", required=True)
    for name, (text, _) in FORMATS.items():
        sub = formats.add_parser(name, help=text)
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
        sub.add_argument("--licence", default="unknown", help="noted in every drive.json")
        sub.add_argument("--num-workers", type=int, default=min(4, os.cpu_count() or 1))
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
        if args.format in TOKEN_FORMATS:
            format = TOKEN_FORMATS[args.format]
            cut = format.cut(args.num_train, args.num_test) if format.is_cut else {}
            store = format.convert(args.src, out, **cut)
            print(*(f"{out}: {entry}" for entry in store.manifest["drives"]), sep="\n")
            return
        options = (tuple(args.size) if args.size else None, tuple(args.split), args.num_workers)
        check_options(*options)
        recordings = FORMATS[args.format][1](args.src, args.licence)
        paths = import_recordings(recordings, out, *options)
        print(*paths, sep="\n")


if __name__ == "__main__":
    main()
