"""Speed and turns read back from pixels: of a world whose motion is known, and of drives."""

import numpy as np
import pytest
import torch

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive
from training.errors import BadInput
from worldmodel.evaluation.control.inverse_dynamics import (
    InverseDynamicsConfig,
    grey_pictures,
    load,
)
from worldmodel.evaluation.control.training import open_inverse_dynamics, train_inverse_dynamics

NAMES = ("throttle", "yaw_rate_rad_s")
SMALL = InverseDynamicsConfig(height=16, channels=8, steps=150, batch_size=32)


def panorama(seed, steps=120):
    """A landscape that moves right by 3 columns (of 32) per unit of yaw."""
    rng = np.random.default_rng(seed)
    yaw = rng.uniform(-1, 1, steps)
    columns = np.arange(320) / 10
    layers = rng.uniform(0, 2 * np.pi, (3, 1)) + columns * rng.uniform(0.3, 1.5, (3, 1))
    place = np.cumsum(np.append(0, yaw[:-1])) * 3 + 150
    frames = []
    for now in place:
        seen = np.interp(now - np.arange(32)[::-1], np.arange(320), np.sin(layers).sum(0))
        rows = np.linspace(0.5, 1.5, 32)[:, None] * seen[::-1]
        grey = 120 + 25 * rows
        frames.append(np.repeat(grey[..., None], 3, -1).clip(0, 255).astype(np.uint8))
    return np.stack(frames), np.stack([rng.uniform(0, 1, steps), yaw], 1)


def with_checkerboard(frames):
    rows, columns = np.indices(frames.shape[1:3]) // 2
    return (frames + 16 * (-1) ** (rows + columns)[..., None]).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    return train_inverse_dynamics([panorama(seed) for seed in range(6)], NAMES, SMALL)


def test_turns_are_read_from_videos_that_it_has_not_seen(model):
    assert model.names == ("yaw_rate_rad_s",)  # no picture shows a throttle
    frames, actions = panorama(99)
    read = model.read(frames[None])
    assert read.shape == (1, len(frames) - 1, 1)
    yaw = actions[:-1, 1]
    assert np.corrcoef(read[0, :, 0], yaw)[0, 1] > 0.97
    assert np.polyfit(yaw, read[0, :, 0], 1)[0] == pytest.approx(1, abs=0.1)


def test_a_pattern_that_stands_still_changes_little(model):
    frames, actions = panorama(98)
    clean = model.read(frames[None])[0, :, 0]
    read = model.read(with_checkerboard(frames)[None])[0, :, 0]
    assert np.sqrt(np.mean((read - clean) ** 2)) < 0.15 * actions[:, 1].std()


def test_a_picture_that_stands_still_does_not_move(model):
    frames, _ = panorama(97)
    still = np.repeat(frames[:1], 5, 0)
    assert (model.read(still[None]) == 0).all()


def test_a_film_that_runs_backwards_turns_the_other_way(model):
    frames, _ = panorama(96)
    there, back = model.read(np.stack([frames, frames[::-1]]))[..., 0]
    np.testing.assert_allclose(back, -there[::-1], atol=1e-6)


def test_the_same_training_gives_the_same_model_with_any_number_of_threads():
    short = InverseDynamicsConfig(height=16, channels=4, steps=3)
    hashes = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(threads)
        hashes.append(train_inverse_dynamics([panorama(0)], NAMES, short).hash)
    assert hashes[0] == hashes[1]


def test_it_is_kept_beside_the_data_and_trained_anew_for_other_data(tmp_path):
    short = InverseDynamicsConfig(height=16, channels=4, steps=2)
    asked = []

    def recordings():
        asked.append(1)
        return [panorama(0)]

    first = open_inverse_dynamics(tmp_path, "a", NAMES, recordings, short)
    again = open_inverse_dynamics(tmp_path, "a", NAMES, recordings, short)
    assert (again.hash, again.names, len(asked)) == (first.hash, first.names, 1)
    open_inverse_dynamics(tmp_path, "b", NAMES, recordings, short)
    assert len(asked) == 2
    file = next(tmp_path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BadInput, match="remove it"):
        load(file)


def test_data_that_teaches_nothing_is_refused():
    frames, actions = panorama(0)
    with pytest.raises(BadInput, match="pixels show none"):
        train_inverse_dynamics([(frames, actions[:, :1])], NAMES[:1])
    with pytest.raises(BadInput, match="none ever moves"):
        train_inverse_dynamics([(frames, 0 * actions)], NAMES)
    with pytest.raises(BadInput, match="too few"):
        train_inverse_dynamics([(frames[:9], actions[:9])], NAMES)
    with pytest.raises(BadInput, match="multiple of 16"):
        InverseDynamicsConfig(height=20)


def test_pictures_are_means_of_grey():
    frames = np.zeros((1, 4, 8, 3), np.uint8)
    frames[0, :2, :2, 1] = 200
    expected = round(0.587 * 200)
    small = grey_pictures(frames, 2, 4)
    assert small.shape == (1, 2, 4)
    assert small[0, 0, 0] == expected
    assert small.sum() == expected


@pytest.mark.slow
def test_on_real_drives_a_pattern_of_a_decoder_changes_little():
    config = CarRacingConfig(num_train=10, num_val=0, num_test=2)
    drives = [make_drive(config, index)[:2] for index in range(12)]
    model = train_inverse_dynamics(drives[:10], ACTION_NAMES, InverseDynamicsConfig(steps=350))
    test, actions = (np.stack(part) for part in zip(*drives[10:], strict=True))
    dotted = np.stack([with_checkerboard(frames) for frames in test])
    clean, marred = (
        dict(zip(model.names, model.read(frames).reshape(-1, 3).T, strict=True))
        for frames in (test, dotted)
    )
    told = {name: actions[:, :-1, i].ravel() for i, name in enumerate(ACTION_NAMES)}
    for name, least in (("yaw_rate_rad_s", 0.9), ("steering", 0.8), ("speed_mps", 0.3)):
        found = np.corrcoef(clean[name], told[name])[0, 1]
        assert found > least, name
        assert np.corrcoef(marred[name], told[name])[0, 1] > found - 0.05, name
    assert np.polyfit(clean["yaw_rate_rad_s"], marred["yaw_rate_rad_s"], 1)[0] > 0.85
