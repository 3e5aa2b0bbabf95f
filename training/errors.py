"""Exceptions that name what happened and what to do about it."""

from pathlib import Path


class BadInput(ValueError):
    """A user's input is unusable; the message names the file, the value and the remedy.

    Command lines print the message alone and exit with code 2; anything else that
    goes wrong keeps its traceback and exits with code 1.
    """


class TrainingFault(RuntimeError):
    """Training cannot go on: a step, a sample or a worker broke; the message names it."""


class CorruptSample(TrainingFault):
    """A sample cannot be read; the message names the drive, the file and what is wrong."""


class NotSaved(TrainingFault):
    """A checkpoint could not be written; what was on the disk before is still there.

    Attributes:
        path: the checkpoint that is missing.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path}: could not be written ({self.why})"
