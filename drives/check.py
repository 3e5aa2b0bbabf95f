"""Check every frame of drives: python -m drives.check FOLDER"""

import argparse
import sys
from pathlib import Path

from drives.drive import open_drives
from training.errors import BadInput


def main() -> None:
    what = "Check every frame of drives."
    parser = argparse.ArgumentParser("python -m drives.check", description=what)
    parser.add_argument("root", type=Path, help="folder of drives (docs/drives.md)")
    try:
        for drive in open_drives(parser.parse_args().root):
            height, width = drive.check_frames(progress=True)
            print(
                f"{drive.id}  {drive.split}  {drive.num_frames} frames  {drive.fps:g} fps  "
                f"{height}x{width}  {' '.join(drive.action_names)}",
                flush=True,
            )
    except BadInput as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
