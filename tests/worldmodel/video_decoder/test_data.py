"""Drives for a tokenizer that cuts a window of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drives.sources import DriveSource
from drives.writing import write_drive
from tokenizer.load import Tokenizer, load_tokenizer
from training.errors import BadInput
from worldmodel.video_decoder.data import DecoderClipDataModule


@pytest.mark.parametrize("side", [64, 96])
def test_a_window_of_its_own_is_cut_from_no_frame(side: int, tmp_path: Path, monkeypatch) -> None:
    """Frames of the window's size are taken as they are; others would be scaled whole."""
    cuts: Tokenizer = load_tokenizer("carracing")
    cuts.preprocessing = replace(cuts.preprocessing, window=(80, 80))
    monkeypatch.setattr("worldmodel.video_decoder.data.load_tokenizer", lambda name: cuts)
    frames = np.random.default_rng(0).integers(0, 255, (8, side, side, 3)).astype(np.uint8)
    meta = {"fps": 10.0, "split": "train", "source": "test", "licence": "unknown"}
    write_drive(tmp_path / "drives/one", frames, np.zeros((8, 0), np.float32), (), meta)
    source = DriveSource(root=str(tmp_path / "drives"), cache=str(tmp_path / "cache"))
    data = DecoderClipDataModule(source, window_frames=7, spacings=[1], duplicates="off")
    if side == 64:
        data.prepare_data()
        assert data.drives
        return
    with pytest.raises(BadInput, match=r"has frames of \(96, 96\).*give drives that are cut"):
        data.prepare_data()
    assert not (tmp_path / "cache").exists()
