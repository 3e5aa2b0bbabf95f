"""Clip statistics: what each sees, and probes of real drives in the order that they must have."""

import numpy as np
import pytest
import torch
from encoded_videos import smooth_frames
from PIL import Image

from drives.video import read_frames
from worldmodel.evaluation.videos.frechet import Frechet
from worldmodel.evaluation.videos.statistics import (
    CELLS,
    COLOUR,
    NUM_FEATURES,
    SCALES,
    clip_statistics,
)


def kind(features, name):
    start = list(SCALES).index(name) * CELLS**2
    return features[:, start : start + CELLS**2] * SCALES[name]


@pytest.fixture(scope="module")
def clip():
    """Frames that move by 1 row and 2 columns each time step, at 64 x 64."""
    return torch.from_numpy(smooth_frames(8, 64, 64).copy())[None]


def test_motion_is_read_in_pixels_per_frame(clip):
    """The window moves right and down, so the picture moves left and up."""
    features = clip_statistics(clip)
    assert features.shape == (1, NUM_FEATURES)
    one_axis = {
        "motion_x": torch.from_numpy(shifted(0, 1)),
        "motion_y": torch.from_numpy(shifted(1, 0)),
    }
    for name, moved in one_axis.items():
        found = kind(clip_statistics(moved[None]), name)
        assert found.mean().item() == pytest.approx(-1, abs=0.3)
    still = kind(clip_statistics(clip[:, :1].expand_as(clip)), "motion_x")
    assert still.abs().max() == 0


def shifted(down, right):
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    picture = np.asarray(Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC))
    return np.stack([picture[down * t :, right * t :][:64, :64] for t in range(8)])


def test_reversing_turns_motion_and_nothing_else(clip):
    forward, backward = clip_statistics(clip), clip_statistics(clip.flip(1))
    for name in SCALES:
        sign = -1 if name.startswith("motion") else 1
        torch.testing.assert_close(
            kind(forward, name), sign * kind(backward, name), atol=1e-5, rtol=1e-3
        )


def test_colour_and_brightness_are_means(clip):
    features = clip_statistics(clip)
    mean = clip.float().mean((0, 1, 2, 3)) / 255
    torch.testing.assert_close(features[0, -3:] * COLOUR, mean)
    luma = (mean * torch.tensor([0.299, 0.587, 0.114])).sum()
    assert kind(features, "brightness").mean().item() == pytest.approx(luma.item(), rel=1e-4)


def probes(clips):
    """Clips with a fault of growing size, by name."""
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    noised = {
        f"noise {share}": (clips.float() + 255 * share * noise).clamp(0, 255).to(torch.uint8)
        for share in (0.02, 0.05, 0.1, 0.2)
    }
    return {
        "same": clips,
        "reversed": clips.flip(1),
        "frozen": clips[:, :1].expand_as(clips),
        **noised,
    }


def test_probes_of_a_real_drive_are_ordered(shared):
    frames = list(read_frames(shared / "data/udacity/mountain/video.mp4", 0, 320))
    clips = torch.from_numpy(np.stack(frames)[:, ::2, ::2].copy()).unflatten(0, (-1, 16))
    real = clip_statistics(clips).numpy()
    found = {name: Frechet(real, clip_statistics(x).numpy())() for name, x in probes(clips).items()}
    assert found["same"] == pytest.approx(0, abs=1e-3)
    levels = [found[name] for name in found if name.startswith("noise")]
    assert found["same"] < levels[0] < levels[1] < levels[2] < levels[3]
    half = Frechet(real[::2], real[1::2])()
    assert half < found["reversed"]
    assert found["reversed"] < found["frozen"]
