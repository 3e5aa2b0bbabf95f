"""Provenance of a checkpoint: python -m worldmodel.evaluation.provenance CKPT [--json]"""

import argparse
from pathlib import Path

from training.cli import bad_input_fails
from training.disk.plain_json import to_json
from worldmodel.evaluation.provenance.chain import lines, provenance


def main() -> None:
    parser = argparse.ArgumentParser("python -m worldmodel.evaluation.provenance")
    parser.add_argument("ckpt", type=Path, help="run or checkpoint folder")
    parser.add_argument("--json", action="store_true", help="as JSON, with every train drive")
    args = parser.parse_args()
    with bad_input_fails():
        found = provenance(args.ckpt)
    print(to_json(found) if args.json else "\n".join(lines(found)))


if __name__ == "__main__":
    main()
