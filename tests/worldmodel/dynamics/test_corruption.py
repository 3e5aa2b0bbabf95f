"""The corruption: every share as published, each of its settings at work."""

import math

import pytest
import torch

from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.masked.corruption import corrupt

SIZES = (1000, 5000)  # so large that noise hardly ever hits the truth
REAL = torch.zeros(6, 5, 40, 2, dtype=torch.int64)


def draw(num=200, **settings):
    """(share of noise, share masked) by time step, and the first masked step, of every draw."""
    torch.manual_seed(0)
    rule = MaskedConfig(**{"context_steps": 5, "num_prompt_frames": 2, **settings})
    noise, masked, first = [], [], []
    for _ in range(num):
        shown, hidden = corrupt(REAL, SIZES, rule)
        assert (shown < torch.tensor(SIZES)).all()
        noise.append((shown != 0).float().mean((0, 2, 3)))
        masked.append(hidden.float().mean((0, 2)))
        first.append(int(hidden.any(2).any(0).float().argmax()))
    return torch.stack(noise), torch.stack(masked), torch.tensor(first)


def test_masked_alone_masks_every_frame_but_the_first_by_the_cosine():
    noise, masked, first = draw(max_corrupt_rate=0.0, non_mlm_ratio=0.0)
    assert noise.max() == 0
    assert masked[:, 0].max() == 0
    assert (first == 1).all()
    torch.testing.assert_close(
        masked[:, 1:].mean(0), torch.full((4,), 2 / math.pi), atol=0.03, rtol=0
    )


def test_each_frame_of_each_clip_has_a_share_of_its_own():
    torch.manual_seed(0)
    rule = MaskedConfig(context_steps=5, num_prompt_frames=2, non_mlm_ratio=0.0)
    shares = corrupt(REAL, SIZES, rule)[1][:, 1:].float().mean(2)
    assert shares.std(0).min() > 0.1
    assert shares.std(1).min() > 0.1


def test_a_share_up_to_the_maximum_is_noise_in_every_frame():
    noise, _, _ = draw(max_corrupt_rate=0.4, non_mlm_ratio=0.0)
    torch.testing.assert_close(noise.mean(0), torch.full((5,), 0.2), atol=0.02, rtol=0)
    assert 0.36 < noise.mean(1).max() < 0.44  # one rate per batch, drawn anew for each
    assert noise.mean(1).min() < 0.02


@pytest.mark.parametrize("num_prompt_frames", [1, 3])
def test_the_other_way_leaves_the_prompt_and_spoils_the_rest(num_prompt_frames):
    noise, masked, first = draw(
        max_corrupt_rate=0.0, non_mlm_ratio=1.0, num_prompt_frames=num_prompt_frames
    )
    assert set(first.tolist()) == set(range(num_prompt_frames, 5))
    assert noise[:, :num_prompt_frames].max() == masked[:, :num_prompt_frames].max() == 0
    last = noise[first == 4]  # 1 - U(0.25, 1) U(0.9, 1)
    torch.testing.assert_close(last[:, 4].mean(), torch.tensor(1 - 0.625 * 0.95), atol=0.04, rtol=0)
    early = noise[first == num_prompt_frames][:, num_prompt_frames:]
    assert (early.mean(0).diff() > 0).all()


def test_a_share_of_batches_goes_the_other_way():
    _, _, first = draw(non_mlm_ratio=0.25, num_prompt_frames=4)
    assert abs((first == 4).float().mean() - 0.25) < 0.08


def test_something_is_always_masked():
    torch.manual_seed(0)
    rule = MaskedConfig(context_steps=2, num_prompt_frames=1)
    one = torch.zeros(1, 2, 1, 1, dtype=torch.int64)
    assert all(corrupt(one, (7,), rule)[1].any() for _ in range(100))


def test_short_clips_keep_a_frame_to_learn():
    rule = MaskedConfig(context_steps=9, num_prompt_frames=8, non_mlm_ratio=1.0)
    assert corrupt(REAL[:, :3], SIZES, rule)[1][:, 2].any()
