"""Scores of frames against other implementations and cases by hand."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from encoded_videos import smooth_frames

from tokenizer.losses.lpips import load_lpips
from worldmodel.evaluation.videos.pixels import (
    against_real,
    change,
    flicker_alone,
    luma,
    sharpness,
)


@pytest.fixture(scope="module")
def frames():
    return torch.from_numpy(smooth_frames(6, 48, 64).copy())


@pytest.fixture(scope="module")
def noisy(frames):
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0)) * 12
    return (frames.float() + noise).clamp(0, 255).to(torch.uint8)


def scipy_ssim(a, b):
    """Wang et al. 2004, eq. 13, with a Gaussian window of sigma 1.5 and radius 5, per channel."""
    a, b = (x.astype(np.float64) for x in (a, b))

    def mean(x):
        return scipy.ndimage.gaussian_filter(x, (1.5, 1.5, 0), truncate=3.4)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2
    cov = mean(a * b) - mu_a * mu_b
    table = (2 * mu_a * mu_b + c1) * (2 * cov + c2)
    table /= (mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2)
    return table[5:-5, 5:-5].mean()


def test_psnr_and_ssim_are_those_of_numpy_and_scipy(frames, noisy):
    found = against_real(noisy, frames)
    a, b = noisy.numpy(), frames.numpy()
    errors = np.square(a.astype(float) - b).mean((1, 2, 3))
    np.testing.assert_allclose(found["psnr"], 10 * np.log10(255**2 / errors), rtol=1e-4)
    expected = [scipy_ssim(*pair) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(found["ssim"], expected, atol=2e-4)
    assert "lpips" not in found


def test_lpips_is_the_packages_frame_by_frame(frames, noisy):
    perceptual = load_lpips("alex")
    found = against_real(noisy, frames, perceptual)["lpips"]
    for index in range(len(frames)):
        a, b = (x[index].permute(2, 0, 1)[None].float() / 127.5 - 1 for x in (noisy, frames))
        expected = perceptual.network(a, b).item()
        assert found[index].item() == pytest.approx(expected, rel=1e-4)


def test_another_size_is_scaled_to_the_real_one(frames):
    small = torch.from_numpy(frames.numpy()[:, ::2, ::2].copy())
    found = against_real(small, frames)
    assert found["psnr"].shape == (6,)
    assert 15 < found["psnr"].min() < found["psnr"].max() < 60


def test_sharpness_is_the_variance_of_scipys_laplacian(frames, noisy):
    found = sharpness(frames)
    for index, frame in enumerate(luma(frames).double().numpy()):
        edges = scipy.ndimage.laplace(frame)[1:-1, 1:-1]
        assert found[index].item() == pytest.approx(edges.var(), rel=1e-4)
    assert (sharpness(noisy) > found).all()


def test_flicker_by_hand():
    """Levels 0, 10, 0, 10 jump by 20 in the second difference; an even ramp by nothing."""
    grey = torch.ones(4, 8, 8, 3)
    jumping = (grey * torch.tensor([0, 10, 0, 10])[:, None, None, None]).to(torch.uint8)
    ramp = (grey * torch.tensor([0, 10, 20, 30])[:, None, None, None]).to(torch.uint8)
    assert flicker_alone(jumping).item() == pytest.approx(20, rel=1e-5)
    assert flicker_alone(ramp).item() == pytest.approx(0, abs=1e-4)
    for clip in (jumping, ramp):
        assert change(clip).item() == pytest.approx(10, rel=1e-5)
    assert change(ramp[:1].expand_as(ramp)) == 0
