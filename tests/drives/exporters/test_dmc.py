"""Drives become the control suite's HDF5, and come back as they were."""

import json

import h5py
import numpy as np
import pytest
from dmc_files import write_dmc

from drives.drive import open_drive
from drives.exporters.__main__ import main
from drives.importers.__main__ import main as import_main
from drives.importers.recordings.dmc import FORMAT
from drives.tokens.spec import TokenSpec
from drives.tokens.writer import TokenStoreWriter


@pytest.fixture
def drives(tmp_path):
    arrays = write_dmc(tmp_path / "in/a.hdf5")
    words = ["--fps=20", "--num-workers=0", "--split", "1", "0", "0"]
    import_main(["dmc", str(tmp_path / "in"), str(tmp_path / "drives"), *words])
    return tmp_path / "drives", arrays


def test_a_file_that_went_in_comes_out(drives, tmp_path):
    root, arrays = drives
    main(["dmc", str(root), str(tmp_path / "out")])
    with h5py.File(tmp_path / "out/train.hdf5") as file:
        assert set(file) == set(arrays)
        for name in ("action", "reward", "discount", "step_type"):
            np.testing.assert_array_equal(file[name], arrays[name])
            assert file[name].dtype == arrays[name].dtype
        pixels = file["observation"][()]
    assert pixels.shape == arrays["observation"].shape
    # H.264 lies between.
    assert np.abs(pixels.astype(float) - arrays["observation"]).mean() < 4
    again = FORMAT.recordings(tmp_path / "out", fps=20)
    np.testing.assert_array_equal(
        again[1].actions, FORMAT.recordings(tmp_path / "in", fps=20)[1].actions
    )


def test_stacks_are_filled_by_the_first_frame(drives, tmp_path):
    root, _ = drives
    main(["dmc", str(root), str(tmp_path / "out"), "--frame-stack=3", "--side=32"])
    frames = list(open_drive(root / "a-0001-train").frames())
    with h5py.File(tmp_path / "out/train.hdf5") as file:
        rows = file["observation"][20:]
    assert rows.shape == (20, 9, 32, 32)
    np.testing.assert_array_equal(rows[0, :3], rows[0, 6:])
    np.testing.assert_array_equal(rows[1, 3:6], rows[0, 6:])
    np.testing.assert_array_equal(rows[9, :3], rows[7, 6:])
    assert abs(float(rows[9, 6:].mean()) - float(frames[9].mean())) < 1
    assert len(FORMAT.recordings(tmp_path / "out", fps=20)) == 2


@pytest.mark.parametrize(("vocab", "name"), [(1024, "vae_latents"), (8192, "dino_latents")])
def test_tokens_of_the_drives_are_the_latents(vocab, name, drives, tmp_path):
    root, _ = drives
    spec = TokenSpec((1, 5, 5), vocab, 20, 1, (80, 80), "voc")
    writer = TokenStoreWriter(tmp_path / "store", spec, [])
    rng = np.random.default_rng(0)
    tokens = {f"a-000{i}-train": rng.integers(0, vocab, (20, 5, 5)) for i in range(2)}
    for drive_id, values in tokens.items():
        writer.write(drive_id, "train", values, np.zeros((20, 0), np.float32))
    main(["dmc", str(root), str(tmp_path / "out"), f"--latents={tmp_path / 'store'}"])
    with h5py.File(tmp_path / "out/train.hdf5") as file:
        assert file[name].dtype == np.int64
        np.testing.assert_array_equal(
            file[name], np.concatenate([*tokens.values()]).reshape(40, 25)
        )


def test_what_cannot_be_exported_is_named(drives, tmp_path, capsys, caplog):
    root, _ = drives
    spec = TokenSpec((1, 5, 5), 1024, 20, 1, (80, 80), "voc")
    writer = TokenStoreWriter(tmp_path / "store", spec, [])
    writer.write("other", "train", np.zeros((20, 5, 5), int), np.zeros((20, 0), np.float32))
    for words, said in [
        ([f"--latents={tmp_path / 'store'}"], "no tokens for each frame of a-0000-train"),
        (["--side=2"], "side=2"),
        (["--frame-stack=0"], "frame_stack=0"),
    ]:
        with pytest.raises(SystemExit) as error:
            main(["dmc", str(root), str(tmp_path / "out"), *words])
        assert error.value.code == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    stated = root / "a-0001-train/drive.json"
    meta = json.loads(stated.read_text())
    stated.write_text(json.dumps({**meta, "fps": 10}))
    with pytest.raises(SystemExit):
        main(["dmc", str(root), str(tmp_path / "out")])
    assert "has 10 frames per second" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    stated.write_text(json.dumps({**meta, "dropped_frames": [[3, 2]]}))
    main(["dmc", str(root), str(tmp_path / "out")])
    assert "a-0001-train: 2 frames are missing: 2 after frame 3; the format has" in caplog.text
    with pytest.raises(SystemExit):
        main(["dmc", str(root), str(tmp_path / "out")])
    assert "train.hdf5" in capsys.readouterr().err
