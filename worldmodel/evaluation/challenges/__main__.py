"""Submissions to 1X's second challenge: python -m worldmodel.evaluation.challenges --help"""

import argparse
from dataclasses import fields
from pathlib import Path

from drives.importers.tokens.formats import recognised_format
from drives.sources import TokenSource
from drives.splits.base import SPLITS
from training.cli import bad_input_fails
from training.machine import compute_device
from worldmodel.evaluation.challenges.submission import (
    NUM_SAMPLES,
    Submitted,
    check_submission,
    submit,
)
from worldmodel.load import load_world_model


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m worldmodel.evaluation.challenges")
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("submit", help="the likeliest tokens of the clip after each clip")
    write.add_argument("ckpt", type=Path, help="run or checkpoint folder")
    write.add_argument("data", type=Path, help="1X's test set, version 2.0, or a token store")
    write.add_argument("out", type=Path, help="folder that gets the submission")
    write.add_argument("--split", choices=SPLITS, default="test")
    write.add_argument("--cache", default="data", help="folder for the store made of 1X's files")
    write.add_argument("--device", help="cpu or cuda; a GPU if there is one")
    for entry in fields(Submitted):
        several = {"nargs": "+"} if entry.name == "authors" else {}
        write.add_argument(f"--{entry.name}", required=True, **several)
    look = commands.add_parser("check", help="what is wrong with a submission")
    look.add_argument("folder", type=Path)
    for command in (write, look):
        command.add_argument("--num-samples", type=int, default=NUM_SAMPLES)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    with bad_input_fails():
        if args.command == "check":
            who = check_submission(args.folder, args.num_samples)
            print(f"{args.folder}: {args.num_samples} samples of {who.method} by {who.team}")
            return
        facts = {entry.name: getattr(args, entry.name) for entry in fields(Submitted)}
        who = Submitted(**{**facts, "authors": tuple(args.authors)})
        device, model = compute_device(args.device), load_world_model(args.ckpt)
        source = TokenSource(str(args.data), recognised_format(args.data) or "store", args.cache)
        store = source.open()
        model.check_store(store)
        drives = store.drives(args.split)
        submit(model.network.to(device), drives, args.out, who, args.num_samples, device)
        print(f"{args.out}: {args.num_samples} samples")


if __name__ == "__main__":
    main()
