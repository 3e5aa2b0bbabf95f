"""Exceptions that name what happened and what to do about it."""


class BadInput(ValueError):
    """A user's input is unusable; the message names the file, the value and the remedy.

    Command lines print the message alone and exit with code 2; anything else that
    goes wrong keeps its traceback and exits with code 1.
    """


class TrainingFault(RuntimeError):
    """Training cannot go on: a step, a sample or a worker broke; the message names it."""


class CorruptSample(TrainingFault):
    """A sample cannot be read; the message names the drive, the file and what is wrong."""
