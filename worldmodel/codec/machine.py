"""Where floating point decodes: everything that changes the order of sums."""

import platform
from pathlib import Path

import numpy as np
import torch

from training.errors import BadInput
from training.machine import hardware


def machine() -> dict[str, str]:
    """The machine, as far as it changes what a network computes."""
    return {
        "hardware": hardware(),
        "architecture": platform.machine(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "libraries": "MKL" if torch.backends.mkl.is_available() else "no MKL",
    }


def refuse_other(written: dict[str, str], path: Path) -> None:
    """BadInput unless this is the machine that coded a container with floats."""
    here = machine()
    for name in here.keys() | written.keys():
        if here.get(name) != written.get(name):
            raise BadInput(
                f"{path}: was coded in floating point with {name}={written.get(name)!r}, and here "
                f"it is {here.get(name)!r}: its bits would decode to other tokens; decode it there,"
                " or code it with --arithmetic exact"
            )
