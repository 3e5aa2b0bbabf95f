"""The one exception that means: what you gave us cannot be used, and here is what to do."""


class BadInput(ValueError):
    """A user's input is unusable; the message names the file, the value and the remedy.

    Command lines print the message alone and exit with code 2; anything else that
    goes wrong keeps its traceback and exits with code 1.
    """
