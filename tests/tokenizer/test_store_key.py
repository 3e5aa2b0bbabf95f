"""A store gets another folder for everything that shapes its content, and for nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from drives.drive import open_drive
from drives.tokens.spec import TokenSpec
from drives.writing import write_drive
from tokenizer.inference.config import AS_TRAINED
from tokenizer.store_key import store_folder

SPEC = TokenSpec((1, 2, 2), 16, 10.0, 1, (32, 32), "0" * 64)
NAMES = ("steering", "throttle")


@pytest.fixture
def drive(tmp_path):
    frames = (np.full((16, 16, 3), i, np.uint8) for i in range(20))
    write_drive(tmp_path / "a", frames, np.zeros((20, 2)), NAMES, {"fps": 10, "split": "train"})
    return open_drive(tmp_path / "a")


def test_what_shapes_a_store_gives_it_another_folder(drive, tmp_path):
    def folder(drive=drive, names=NAMES, inference=AS_TRAINED, every=1, fps=10.0):
        spec = replace(SPEC, fps=fps)
        return store_folder(tmp_path / "tokens", "d", spec, [drive], names, inference, every)

    same = folder()
    others = [
        folder(names=("steering",)),
        folder(names=NAMES[::-1]),
        folder(names=()),
        folder(inference=replace(AS_TRAINED, dtype="bfloat16")),
        folder(every=2, fps=5.0),
        folder(drive=drive.at_fps(5), fps=5.0),
        folder(drive=replace(drive, split="val")),
    ]
    assert len({same, *others}) == 1 + len(others)
    assert folder(drive=replace(drive)) == same
