"""commaVQ's challenge: the zip decodes by itself to the very arrays."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from codec_files import SMALL, make_checkpoint, make_store, make_tokens, refused

from worldmodel.codec.__main__ import main

pytest.importorskip("constriction")


@pytest.mark.slow
def test_the_zip_decodes_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the challenge's evaluate.sh: unzip, decompress.py with OUTPUT_DIR, np.load of names."""
    store, ckpt = make_store(tmp_path / "store"), make_checkpoint(tmp_path / "ckpt")
    file, out = tmp_path / "a.model", tmp_path / "entry.zip"
    main(["pack", ckpt, "-o", str(file)])
    main(["challenge", store, "-o", str(out), "--ckpt", str(file), *SMALL])
    rate = float(capsys.readouterr().out.rsplit("rate", 1)[1])
    assert rate == pytest.approx(34 * 6 * 10 / 8 / out.stat().st_size, abs=1e-3)
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(out).extractall(unpacked)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, str(unpacked / "decompress.py")],
        env={**env, "OUTPUT_DIR": str(unpacked)},
        cwd=tmp_path,
        check=True,
    )
    for number, steps in enumerate((16, 3, 15)):
        found = np.load(unpacked / f"d{number}.npy")
        assert found.dtype == np.int16
        assert np.array_equal(found, make_tokens(steps, number))


def test_a_model_that_is_not_packed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt, out = make_checkpoint(tmp_path / "ckpt"), tmp_path / "entry.zip"
    assert "pack it" in refused(capsys, "challenge", "none", "-o", str(out), "--ckpt", ckpt)
    assert not out.exists()
