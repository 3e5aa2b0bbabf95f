"""Exports drives and tokens to the formats of others: `python -m drives.exporters --help`."""

import argparse
import logging
from pathlib import Path

from drives.exporters.formats import EXPORT_FORMATS
from drives.importers.flags import add_flags, options_of
from training.cli import bad_input_fails
from training.disk.places import writable_folder


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m drives.exporters", description="Write for others.")
    formats = parser.add_subparsers(dest="format", required=True)
    for name, format in EXPORT_FORMATS.items():
        sub = formats.add_parser(name, help=format.text, description=format.text)
        sub.add_argument("src", type=Path, help=f"folder of {format.takes}")
        sub.add_argument("out", help="folder that gets the files")
        add_flags(sub, format.options)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Where the input is unusable: the message alone and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = parse(arguments)
    with bad_input_fails():
        format = EXPORT_FORMATS[args.format]
        out = writable_folder("out", args.out)
        print(*format.export(args.src, out, options_of(args, format.options)), sep="\n")


if __name__ == "__main__":
    main()
