"""Steering is measured by the motion of the scene ahead."""

import numpy as np
import pytest
import torch

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive
from drives.clips.motion import scene_motion
from drives.tokens.store import TokenDrive
from worldmodel.evaluation.steering import steering_amplitude


@pytest.mark.parametrize("shift", [-3, -1, 0, 2, 4])
def test_a_scene_that_moves_is_measured_in_pixels_and_sign(shift):
    scene = torch.rand(1, 3, 64, 256, generator=torch.Generator().manual_seed(0)) * 255
    frames = [torch.roll(scene, shift * t, dims=-1)[..., 64:128] for t in range(5)]
    motion = scene_motion(torch.stack(frames, dim=1).to(torch.uint8))
    assert motion.shape == (1, 4)
    torch.testing.assert_close(motion, torch.full((1, 4), float(shift)), atol=0.3, rtol=0)


def test_on_real_drives_the_scene_moves_right_when_the_car_turns_left():
    frames, actions, _ = make_drive(CarRacingConfig(num_train=1, num_val=0, num_test=0), 0)
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)[None]
    motion = scene_motion(pixels)[0].numpy()
    yaw = actions[:-1, ACTION_NAMES.index("yaw_rate_rad_s")]
    assert np.corrcoef(motion, yaw)[0, 1] > 0.4


def test_the_amplitude_is_a_quantile_of_the_train_drives():
    actions = np.linspace(-1, 1, 201, dtype=np.float32)[:, None]
    drive = TokenDrive("d", "train", np.zeros((201, 1, 1), np.uint16), actions)
    assert steering_amplitude([drive], ["steering"])["steering"] == pytest.approx(0.9, abs=0.01)
    assert steering_amplitude([drive], ["speed_mps"]) == {}
