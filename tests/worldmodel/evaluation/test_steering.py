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


def still(kind: str) -> torch.Tensor:
    """A pattern of strength 1 that stands still, as decoders draw them."""
    rng, rows, columns = torch.Generator().manual_seed(1), torch.arange(64), torch.arange(128)
    if kind == "checkerboard":
        return ((rows[:, None] // 4 + columns // 4) % 2) * 2.0 - 1
    if kind == "cells":
        return torch.randn(8, 16, generator=rng).repeat_interleave(8, 0).repeat_interleave(8, 1)
    return torch.randn(64, 128, generator=rng)


@pytest.mark.parametrize("kind", ["checkerboard", "cells", "noise"])
@pytest.mark.parametrize("strength", [0, 20, 60])
def test_a_pattern_that_stands_still_is_not_read_as_motion(kind: str, strength: float) -> None:
    scene = torch.rand(1, 3, 64, 256, generator=torch.Generator().manual_seed(0)) * 255
    for scene_of, error in ((scene, 0.2), (blurred(scene), 0.45)):
        for shift in (-3, 0, 1, 4):
            frames = [torch.roll(scene_of, shift * t, dims=-1)[..., 64:192] for t in range(8)]
            seen = (torch.stack(frames, 1) + strength * still(kind)).clamp(0, 255)
            motion = scene_motion(seen.to(torch.uint8))
            assert (motion - shift).abs().max() < error, (shift, motion)


def blurred(scene: torch.Tensor) -> torch.Tensor:
    """Without fine detail, of the same contrast: the pattern is louder than it there."""
    soft = torch.nn.functional.avg_pool2d(scene, 7, 1, 3)
    return (soft - soft.mean()) / soft.std() * 38 + 128


def test_clips_of_a_parked_car_stand_still_beside_others() -> None:
    rng = torch.Generator().manual_seed(0)
    scene = torch.rand(2, 3, 64, 256, generator=rng) * 255
    parked = [scene[:1, ..., 64:192]] * 8
    turning = [torch.roll(scene[1:], 3 * t, dims=-1)[..., 64:192] for t in range(8)]
    frames = torch.stack([torch.cat(pair) for pair in zip(parked, turning, strict=True)], 1)
    motion = scene_motion(frames.to(torch.uint8))
    assert motion[0].abs().max() < 0.3
    assert (motion[1] - 3).abs().max() < 0.45
    assert not scene_motion(torch.stack(parked, 1).to(torch.uint8)).any()  # alone: exactly


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
