"""Exceptions with the cause and the remedy in their messages."""

from pathlib import Path


class BadInput(ValueError):
    """A user's input is unusable; the message names the file, the value and the remedy.

    Commands print the message alone and exit with code 2. Other errors keep their traceback
    and exit with code 1.
    """


class TrainingFault(RuntimeError):
    """Training cannot continue: a step, a sample or a worker failed; the message names it."""


class CorruptSample(TrainingFault):
    """A sample cannot be read; the message names the drive, the file and the cause."""


class NotSaved(TrainingFault):
    """A checkpoint could not be written; older checkpoints remain.

    Attributes:
        path: the missing checkpoint.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path}: could not be written ({self.why})"


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its class's name where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
