"""Check every frame of drives: python -m drives.check FOLDER"""

import argparse
from pathlib import Path

from drives.folder import open_drives
from training.cli import bad_input_fails


def main() -> None:
    what = "Check every frame of drives."
    parser = argparse.ArgumentParser("python -m drives.check", description=what)
    parser.add_argument("root", type=Path, help="folder of drives (docs/drives.md)")
    root = parser.parse_args().root
    with bad_input_fails():
        for drive in open_drives(root):
            height, width = drive.check_frames(progress=True)
            print(
                f"{drive.id}  {drive.split}  {drive.num_frames} frames  {drive.fps:g} fps  "
                f"{height}x{width}  {' '.join(drive.action_names)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
