"""Near-duplicates: copies are found through noise, compression and names; others are not."""

import numpy as np
import torch
from encoded_videos import smooth_frames

from worldmodel.evaluation.videos.duplicates import distances, near_duplicates, thumbnail


def clip(seed):
    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(smooth_frames(8, 48, 64).copy())
        .roll(int(rng.integers(1, 40)), 2)
        .flip(int(rng.integers(0, 2)) + 1)
    )


def thumbnails(clips):
    return torch.stack([thumbnail(one) for one in clips])


def test_a_noisy_copy_is_named_and_other_clips_are_not():
    real = [clip(seed) for seed in range(5)]
    noise = 10 * torch.randn(real[3].shape, generator=torch.Generator().manual_seed(0))
    copy = (real[3].float() + noise).clamp(0, 255).to(torch.uint8)
    fake = [255 - real[0], copy, 255 - real[1]]
    names = (list("abcde"), list("xyz"))
    found = near_duplicates(thumbnails(real), thumbnails(fake), names)
    assert found["fake_of_real"]["num_near_duplicates"] == 1
    ((distance, index, other),) = found["fake_of_real"]["pairs"]
    assert (index, other) == (1, 3)
    assert 0 < distance < 3
    assert found["within_fake"]["num_near_duplicates"] == 0


def test_clips_of_one_video_are_no_duplicates_of_each_other():
    still = thumbnails([clip(0)] * 4)
    one = near_duplicates(still, still, (["a"] * 4, ["a"] * 4))["within_fake"]
    assert (one["num_clips"], one["num_near_duplicates"], one["median_distance"]) == (0, 0, None)
    many = near_duplicates(still, still, (list("abcd"), list("abcd")))["within_fake"]
    assert (many["num_clips"], many["num_near_duplicates"]) == (4, 4)


def test_the_distance_is_in_levels():
    grey = torch.full((1, 64), 100.0)
    assert distances(grey, grey + 7).item() == 7
