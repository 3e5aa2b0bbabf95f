"""A world model as a lossless codec: python -m worldmodel.codec --help"""

import argparse
import errno
from pathlib import Path

from drives.importers.flags import add_flags, options_of
from training.cli import FAULT, FULL, bad_input_fails, fail
from training.errors import BadInput
from training.pages.text_table import text_table
from worldmodel.codec.budget import budget
from worldmodel.codec.challenge import submission
from worldmodel.codec.compress import compress, measured
from worldmodel.codec.decompress import decompress
from worldmodel.codec.options import CodecOptions, listed
from worldmodel.codec.packing.packed import pack
from worldmodel.codec.reading import examine, read_header
from worldmodel.codec.tokens import spec_of
from worldmodel.codec.verify import verify


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m worldmodel.codec", description="Lossless codec.")
    commands = parser.add_subparsers(dest="command", required=True)
    tokens = "a token store, published tokens, or a .npy file [step height width]"
    code = commands.add_parser("compress", help="code tokens into a container")
    code.add_argument("tokens", type=Path, help=tokens)
    code.add_argument("-o", "--out", type=Path, required=True, help="the container")
    back = commands.add_parser("decompress", help="decode a container to what it was made of")
    back.add_argument("container", type=Path)
    back.add_argument("-o", "--out", type=Path, required=True, help="a folder, or a .npy file")
    back.add_argument("--ckpt", default="", help="the models that coded it")
    back.add_argument("--parallel", type=int, help="segments decoded at once; any, if exact")
    back.add_argument("--recover", action="store_true", help="take the whole segments of a damaged")
    both = commands.add_parser("verify", help="code, decode, compare; sizes beside other codecs")
    both.add_argument("tokens", type=Path, help=tokens)
    entry = commands.add_parser("challenge", help="a zip in the format of commaVQ's challenge")
    entry.add_argument("tokens", type=Path, help=tokens)
    entry.add_argument("-o", "--out", type=Path, required=True, help="the zip")
    total = commands.add_parser("budget", help="where models pay for their bytes")
    total.add_argument("tokens", type=Path, help=tokens)
    total.add_argument("-o", "--out", type=Path, required=True, help="the chart, an SVG")
    total.add_argument("--ckpt", required=True, help="packed models, with commas between them")
    for sub in (code, both, entry, total):
        sub.add_argument("--cache", default="data", help="folder of converted published tokens")
    for sub in (code, both, entry):
        add_flags(sub, CodecOptions)
    small = commands.add_parser("pack", help="write a model in few bytes; --ckpt takes the file")
    small.add_argument("ckpt", help="a run or checkpoint folder")
    small.add_argument("-o", "--out", type=Path, required=True, help="the file")
    small.add_argument("--bits", type=int, default=4, help="of a weight, before entropy coding")
    look = commands.add_parser("info", help="what a container holds, and whether it is whole")
    look.add_argument("container", type=Path)
    return parser.parse_args(arguments)


def info(path: Path) -> None:
    """Print the header, the segments and the sizes; BadInput where the container is damaged."""
    header, found = read_header(path)[0], examine(path)
    names = [
        " ".join(str(entry[key])[:60] for key in ("name", "hash", "ckpt") if key in entry)
        for entry in header.predictors
    ]
    rows = [
        ("schema", header.schema),
        ("made of", header.source.get("kind")),
        ("predictors", ", ".join(names)),
        ("arithmetic", header.arithmetic),
        *header.machine.items(),
        ("grid", header.spec.get("grid")),
        ("vocabulary", header.spec.get("vocab_size")),
        ("tokenizer", header.spec.get("tokenizer")),
        ("actions", ", ".join(header.action_names) or None),
    ]
    print(text_table(["", ""], rows))
    space = spec_of(header).tokens_per_step
    cells = [
        (number, about.name, about.bits / (about.steps * space))
        for number, about in found.segments.items()
    ]
    print(text_table(["segment", "holds", "cross entropy in bits"], cells))
    if found.damage:
        raise BadInput(f"{path}: {'; '.join(found.damage)}")
    print(measured(path))


def main(arguments: list[str] | None = None) -> None:
    """Where the input is unusable: the message alone and exit code 2."""
    args = parse(arguments)
    with bad_input_fails():
        try:
            run(args)
        except OSError as error:
            if error.errno not in FULL:
                raise
            where = error.filename or getattr(args, "out", "") or "the folder of temporary files"
            fail(
                f"{where}: {error.strerror or errno.errorcode[error.errno]}; make room and give "
                "the command again: compress goes on where it stopped",
                code=FAULT,
            )


def run(args: argparse.Namespace) -> None:
    if args.command == "compress":
        compress(args.tokens, args.out, options_of(args, CodecOptions), args.cache)
        print(f"{args.out}: {measured(args.out)}")
    elif args.command == "decompress":
        print(
            *decompress(args.container, args.out, listed(args.ckpt), args.parallel, args.recover),
            sep="\n",
        )
    elif args.command == "challenge":
        print(submission(args.tokens, args.out, options_of(args, CodecOptions), args.cache))
    elif args.command == "budget":
        print(budget(args.tokens, listed(args.ckpt), args.out, args.cache))
    elif args.command == "pack":
        print(f"{args.out}: {pack(args.ckpt, args.out, args.bits)} bytes")
    elif args.command == "verify":
        print(verify(args.tokens, options_of(args, CodecOptions), args.cache))
    else:
        info(args.container)


if __name__ == "__main__":
    main()
