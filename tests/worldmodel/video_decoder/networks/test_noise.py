"""Noise of clips: whose it is, and what frames have in common."""

import pytest
import torch

from worldmodel.video_decoder.networks.noise import ClipNoise

CPU = torch.device("cpu")


@pytest.mark.parametrize("shared", [0.0, 0.3, 1.0])
def test_frames_of_a_clip_share_as_much_noise_as_is_asked_for(shared: float) -> None:
    """Normal of variance 1 for every share; also frames of two windows have it in common."""
    noise = ClipNoise([1, 2], CPU)
    first, second = (noise.frames(2, 3, 64, 64, shared=shared) for _ in range(2))
    frames = torch.cat([first, second], dim=1).flatten(2)
    for clip in frames:
        expected = torch.full((4, 4), shared).fill_diagonal_(1.0)
        assert torch.allclose(torch.cov(clip), expected, atol=0.05)
    assert abs(float((frames[0, 0] * frames[1, 0]).mean())) < 0.05


def test_noise_that_is_not_shared_is_that_of_before() -> None:
    old = ClipNoise([5], CPU).normal(7, 3, 8, 8)
    assert torch.equal(ClipNoise([5], CPU).frames(7, 3, 8, 8), old)
