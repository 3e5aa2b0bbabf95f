"""Episodes of the control suite: actions meet the frames that they led to; bad files are named."""

import h5py
import numpy as np
import pytest
from dmc_files import write_dmc

from drives.drive import open_drive
from drives.importers.__main__ import main
from drives.importers.recordings.dmc import FORMAT
from training.errors import BadInput


@pytest.mark.parametrize("stack", [1, 3])
def test_episodes_are_recordings_and_an_action_stands_before_its_frame(stack, tmp_path):
    arrays = write_dmc(tmp_path / "3_cheetah_run_random.hdf5", (20, 12), stack)
    first, second = FORMAT.recordings(tmp_path, fps=50)
    assert (first.id, second.id) == ("3_cheetah_run_random-0000", "3_cheetah_run_random-0001")
    assert (first.fps, len(first.actions), len(second.actions)) == (50, 20, 12)
    assert first.action_names == (*(f"action_{i}" for i in range(6)), "reward")
    np.testing.assert_array_equal(first.actions[:19, :6], arrays["action"][1:20])
    np.testing.assert_array_equal(second.actions[:11, 6], arrays["reward"][21:32])
    np.testing.assert_array_equal(first.actions[19], first.actions[18])
    newest = arrays["observation"][:, -3:].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(list(second.read(0, 12)), newest[20:])
    np.testing.assert_array_equal(list(first.read(5, 7)), newest[5:7])


def test_a_file_becomes_drives(tmp_path):
    write_dmc(tmp_path / "in/a.hdf5")
    main(["dmc", str(tmp_path / "in"), str(tmp_path / "out"), "--fps=20", "--num-workers=0"])
    drives = [open_drive(path) for path in sorted((tmp_path / "out").iterdir())]
    assert [drive.id for drive in drives][:3] == ["a-0000-test", "a-0000-train", "a-0000-val"]
    assert {drive.frame_size for drive in drives} == {(84, 84)}


def test_a_changing_discount_is_a_column(tmp_path):
    arrays = write_dmc(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["discount"][19] = 0
    (first, _) = FORMAT.recordings(tmp_path, fps=50)
    assert first.action_names[-1] == "discount"
    assert first.actions[18, -1] == 0
    assert len(arrays["discount"]) == 40


def replaced(name, change):
    def harm(path):
        with h5py.File(path, "a") as file:
            values = file[name][()]
            del file[name]
            new = change(values)
            if new is not None:
                file[name] = new

    return harm


def elsewhere(path):
    """An external link: HDF5 would open any file of this machine."""
    with h5py.File(path.with_suffix(".other"), "w") as file:
        file["reward"] = np.zeros(40, np.float32)
    with h5py.File(path, "a") as file:
        del file["reward"]
        file["reward"] = h5py.ExternalLink(str(path.with_suffix(".other")), "reward")


def references(path):
    with h5py.File(path, "a") as file:
        del file["reward"]
        file.create_dataset("reward", (40,), h5py.ref_dtype)[:] = file["action"].ref


def external(path):
    """Storage in another file."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(bytes(160))
    with h5py.File(path, "a") as file:
        del file["reward"]
        file.create_dataset("reward", (40,), np.float32, external=str(raw))


def never_written(path):
    with h5py.File(path, "a") as file:
        del file["observation"]
        file.create_dataset("observation", (40, 3, 84, 84), np.uint8, chunks=(1, 3, 84, 84))


def step(row, value):
    def change(values):
        values[row] = value
        return values

    return replaced("step_type", change)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (replaced("action", lambda v: None), "action is missing; there are discount, observation"),
        (replaced("observation", lambda v: v.transpose(0, 2, 3, 1)), r"give uint8 \[row, 3"),
        (replaced("observation", lambda v: v[:, :, 0]), "give 4 axes"),
        (replaced("observation", lambda v: v[:-1]), "observation has 39 rows, step_type 40"),
        (replaced("reward", lambda v: v[:-1]), "reward has 39 rows, step_type 40"),
        (replaced("action", lambda v: v * np.nan), "action: row 0 is not finite"),
        (replaced("step_type", lambda v: v + 1), "step_type of row 19 is 3"),
        (step(0, 1), "row 0 is not the first"),
        (step(5, 2), "row 6 goes on after a last one"),
        (elsewhere, "reward is missing"),
        (references, "reward holds object"),
        (external, "reward is no array in this file"),
        (never_written, "observation: parts of it were never written"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "cannot be read as HDF5"),
    ],
)
def test_bad_files_are_named(harm, said, tmp_path):
    write_dmc(tmp_path / "a.hdf5")
    harm(tmp_path / "a.hdf5")
    with pytest.raises(BadInput, match=said) as error:
        FORMAT.recordings(tmp_path / "a.hdf5", fps=50)
    assert "a.hdf5" in str(error.value)


def test_an_episode_shorter_than_its_stack_is_named(tmp_path):
    write_dmc(tmp_path / "a.hdf5", (20, 2), stack=3)
    with pytest.raises(BadInput, match="the episode at row 20 has 2 rows; at least 3"):
        FORMAT.recordings(tmp_path, fps=50)


def test_a_stack_in_another_order_is_named(tmp_path):
    write_dmc(tmp_path / "a.hdf5", stack=2)
    replaced("observation", lambda v: np.concatenate([v[:, 3:], v[:, :3]], 1))(tmp_path / "a.hdf5")
    with pytest.raises(BadInput, match="is not the newest"):
        FORMAT.recordings(tmp_path, fps=50)


def test_the_rate_has_to_be_given(tmp_path):
    write_dmc(tmp_path / "a.hdf5")
    with pytest.raises(BadInput, match="--fps"):
        FORMAT.recordings(tmp_path)
    with pytest.raises(BadInput, match=r"--fps=-1"):
        FORMAT.recordings(tmp_path, fps=-1)
