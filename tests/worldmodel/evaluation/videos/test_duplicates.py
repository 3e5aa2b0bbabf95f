"""Near-duplicates: copies are found through noise, compression and names; others are not."""

import numpy as np
import pytest
import torch
from encoded_videos import smooth_frames

from drives.duplicates.likeness import LEAST_CHANGE, MAX_RATIO
from worldmodel.evaluation.videos.duplicates import near_duplicates, print_of, ratios


def clip(seed):
    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(smooth_frames(8, 48, 64).copy())
        .roll(int(rng.integers(1, 40)), 2)
        .flip(int(rng.integers(0, 2)) + 1)
    )


def prints(clips):
    return [print_of(one, 10.0) for one in clips]


def test_a_noisy_copy_is_named_and_other_clips_are_not():
    real = [clip(seed) for seed in range(5)]
    noise = 10 * torch.randn(real[3].shape, generator=torch.Generator().manual_seed(0))
    copy = (real[3].float() + noise).clamp(0, 255).to(torch.uint8)
    fake = [255 - real[0], copy, 255 - real[1]]
    names = (list("abcde"), list("xyz"))
    found = near_duplicates(prints(real), prints(fake), names)
    assert found["fake_of_real"]["num_near_duplicates"] == 1
    ((ratio, index, other),) = found["fake_of_real"]["pairs"]
    assert (index, other) == (1, 3)
    assert 0 < ratio < MAX_RATIO
    assert found["within_fake"]["num_near_duplicates"] == 0


def test_clips_of_one_video_are_no_duplicates_of_each_other():
    still = prints([clip(0)] * 4)
    one = near_duplicates(still, still, (["a"] * 4, ["a"] * 4))["within_fake"]
    assert (one["num_clips"], one["num_near_duplicates"], one["median_ratio"]) == (0, 0, None)
    many = near_duplicates(still, still, (list("abcd"), list("abcd")))["within_fake"]
    assert (many["num_clips"], many["num_near_duplicates"]) == (4, 4)


def test_the_ratio_is_of_the_other_clips_own_change():
    moving, still = clip(0), clip(1)[:1].expand(8, -1, -1, -1)
    prints = [print_of(one, 10.0) for one in (moving, still)]
    assert prints[1].change == pytest.approx(0, abs=1e-6)
    table = ratios(prints, prints)
    assert np.diag(table) == pytest.approx(0, abs=1e-4)
    apart = 1 - prints[0].details @ prints[1].details
    assert table[1, 0] == pytest.approx(apart / prints[0].change)
    assert table[0, 1] == pytest.approx(apart / LEAST_CHANGE)


def test_brightness_does_not_hide_a_copy():
    real = clip(2)
    darker = (real.float() * 0.7).to(torch.uint8)
    assert ratios([print_of(darker, 10.0)], [print_of(real, 10.0)]).item() < 0.05
