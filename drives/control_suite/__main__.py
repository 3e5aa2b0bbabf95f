"""Makes drives of the control suite: `python -m drives.control_suite data/cheetah`."""

import argparse

from drives.control_suite.config import ControlSuiteConfig
from drives.control_suite.episodes import make_episodes
from drives.importers.flags import add_flags, options_of
from training.cli import bad_input_fails
from training.disk.places import writable_folder


def main(arguments: list[str] | None = None) -> None:
    """Where the input is unusable: the message alone and exit code 2."""
    parser = argparse.ArgumentParser("python -m drives.control_suite", description=__doc__)
    parser.add_argument("out", help="folder that gets the drives")
    add_flags(parser, ControlSuiteConfig)
    args = parser.parse_args(arguments)
    with bad_input_fails():
        config = options_of(args, ControlSuiteConfig)
        for path in make_episodes(writable_folder("out", args.out), config):
            print(path, flush=True)


if __name__ == "__main__":
    main()
