"""Splits drives by time, route or geofence: python -m drives.splits FOLDER OUT.json --by time

data.source.splits=OUT.json then uses OUT.json; the drives stay as they are.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from drives.drive import Drive
from drives.folder import open_folders
from drives.splits.base import SPLITS
from drives.splits.pieces import write_splits
from drives.splits.rules import Pieces, by_geofence, by_route, by_time
from drives.splits.tracks import read_fences
from training.cli import bad_input_fails
from training.errors import BadInput

RULES = ("time", "route", "geofence")


def parsed() -> argparse.Namespace:
    what = "Split drives by time with a gap, by route or by geofence."
    parser = argparse.ArgumentParser("python -m drives.splits", description=what)
    parser.add_argument("root", type=Path, help="folder of drives (docs/drives.md)")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--by", choices=RULES, required=True)
    names = tuple(name.upper() for name in SPLITS)
    parser.add_argument(
        "--shares", nargs=3, type=float, default=(0.8, 0.1, 0.1), metavar=names, help="by time"
    )
    parser.add_argument("--gap-s", type=float, default=10.0, help="by time: seconds left out")
    parser.add_argument("--val", nargs="+", default=(), help="by route: routes of val")
    parser.add_argument("--test", nargs="+", default=(), help="by route: routes of test")
    parser.add_argument("--fences", type=Path, help="by geofence: GeoJSON polygons")
    parser.add_argument("--margin-m", type=float, default=50.0, help="by geofence: metres left out")
    parser.add_argument(
        "--seen",
        nargs=2,
        type=float,
        default=(0.0, 0.0),
        metavar=names[1:],
        help="by geofence: shares of drives held out on roads that train drives took",
    )
    return parser.parse_args()


def pieces_by(args: argparse.Namespace, drives: list[Drive]) -> Pieces:
    """The pieces that the chosen rule makes of the drives."""
    if args.by == "time":
        return by_time(drives, args.shares, args.gap_s)
    if args.by == "route":
        return by_route(drives, args.val, args.test)
    if args.fences is None:
        raise BadInput("--by geofence: give --fences FILE, polygons as GeoJSON")
    seen = dict(zip(SPLITS[1:], args.seen, strict=True))
    return by_geofence(drives, read_fences(args.fences), args.margin_m, seen)


def main() -> None:
    args = parsed()
    with bad_input_fails():
        drives = open_folders(args.root)
        found = pieces_by(args, drives)
        rule = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        write_splits(args.out, found, rule)
    seconds: dict[str, float] = defaultdict(float)
    for drive in drives:
        for piece in found[drive.id]:
            name = f"{piece.split}_{piece.roads}" if piece.roads else piece.split
            seconds[name] += (piece.stop - piece.start) / drive.fps
    for name in sorted(seconds):
        print(f"{name:12} {seconds[name]:8.1f} s")
    print(f"{args.out}: use it with data.source.splits={args.out}")


if __name__ == "__main__":
    main()
