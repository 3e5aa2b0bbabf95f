import math

import pytest
import skimage.metrics
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from tokenizer.metrics import MAX_PSNR_DB, CodebookStats, fixed_pattern, psnr, ssim


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(0)) - 0.5


def test_psnr_of_a_constant_error_is_its_closed_form(images: torch.Tensor) -> None:
    errors = torch.tensor([0.01, 0.1, 0.4])
    pred = images + errors[:, None, None, None]
    expected = [20 * math.log10(2.0 / error) for error in errors.tolist()]
    torch.testing.assert_close(psnr(pred, images), torch.tensor(expected), atol=1e-3, rtol=0)


def test_psnr_of_equal_images_is_bounded_and_above_all_others(images: torch.Tensor) -> None:
    assert psnr(images, images).tolist() == [MAX_PSNR_DB] * 3
    other = images.clone()
    other[:, 0, 0, 0] += 2 / 255  # one level, in one place
    assert (psnr(other, images) < MAX_PSNR_DB).all()


def test_ssim_of_flat_images_is_its_closed_form() -> None:
    # Without variance only the luminance term is left: (2ab + c) / (a^2 + b^2 + c).
    levels = torch.tensor([[0.5, 0.5], [0.2, 0.8], [-0.3, 0.1]])
    pred, target = (level[:, None, None, None].expand(3, 3, 16, 16) for level in levels.T)
    c = 0.01**2
    a, b = (levels.T + 1) / 2  # brightness from 0 to 1
    torch.testing.assert_close(ssim(pred, target), (2 * a * b + c) / (a**2 + b**2 + c))


def test_psnr_and_ssim_are_those_of_other_implementations(images: torch.Tensor) -> None:
    """scikit-image's for 8-bit images, and torchmetrics' PSNR for values in [-1, 1]."""
    target = ((images + 0.5) * 255).round() / 127.5 - 1
    blurred = torch.nn.functional.avg_pool2d(target, 3, stride=1, padding=1)
    noise = 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(2))
    for pred in (blurred, (target + noise).clamp(-1, 1), target.flip(-1)):
        pred = ((pred + 1) * 127.5).round() / 127.5 - 1
        torchmetrics_psnr = peak_signal_noise_ratio(
            pred, target, data_range=2.0, reduction="none", dim=(1, 2, 3)
        )
        torch.testing.assert_close(psnr(pred, target), torchmetrics_psnr)
        ours = zip(psnr(pred, target), ssim(pred, target), strict=True)
        for a, b, (decibels, similarity) in zip(pred, target, ours, strict=True):
            a, b = (((x + 1) * 127.5).round().byte().numpy() for x in (a, b))
            theirs = skimage.metrics.peak_signal_noise_ratio(b, a, data_range=255)
            assert decibels.item() == pytest.approx(theirs, abs=1e-4)
            theirs = skimage.metrics.structural_similarity(
                *(a, b),
                data_range=255,
                channel_axis=0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            assert similarity.item() == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_ssim_is_one_for_equal_and_less_for_noisy_images(images: torch.Tensor, count: int) -> None:
    images = images[:count]
    torch.testing.assert_close(ssim(images, images), torch.ones(count))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    little, much = ssim(images + 0.1 * noise, images), ssim(images + 0.5 * noise, images)
    assert little.shape == (count,)
    assert (much < little).all()
    assert (little < 1).all()


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_each_image_is_judged_alone_and_in_float32(metric, images: torch.Tensor) -> None:
    pred = images.flip(0)
    alone = torch.cat([metric(p[None], t[None]) for p, t in zip(pred, images, strict=True)])
    torch.testing.assert_close(metric(pred, images), alone)
    assert metric(pred.bfloat16(), images.bfloat16()).dtype == torch.float32


def test_uniform_codes_have_full_perplexity() -> None:
    stats = CodebookStats(1024)
    stats.update(torch.arange(1024).reshape(4, 16, 16))
    assert stats.usage == 1
    assert stats.entropy_bits.item() == pytest.approx(10)
    assert stats.perplexity.item() == pytest.approx(1024, rel=1e-5)


def test_skewed_codes_over_several_updates() -> None:
    stats = CodebookStats(8)
    stats.update(torch.tensor([[0, 0], [1, 2]], dtype=torch.int32))
    stats.update(torch.tensor([0, 0, 1, 2], dtype=torch.uint8))
    # Shares 1/2, 1/4, 1/4: 1.5 bits.
    assert stats.counts.tolist() == [4, 2, 2, 0, 0, 0, 0, 0]
    assert stats.usage.item() == 3 / 8
    assert stats.entropy_bits.item() == pytest.approx(1.5)
    assert stats.perplexity.item() == pytest.approx(2**1.5)


def test_codes_of_digits_are_reachable_where_every_digit_is_seen() -> None:
    stats = CodebookStats(24, factors=(4, 3, 2))
    stats.update(torch.tensor([0 + 4 * 0 + 12 * 0, 3 + 4 * 1 + 12 * 1]))
    assert stats.reachable.item() == pytest.approx(2 / 4 * 2 / 3 * 2 / 2)
    stats.update(torch.tensor([1, 2, 4 * 2]))
    assert stats.reachable == 1
    assert stats.usage.item() == pytest.approx(5 / 24)
    assert CodebookStats(24).reachable == 1


def test_one_code_has_no_entropy_and_none_at_all_is_nan() -> None:
    stats = CodebookStats(4)
    assert stats.usage == 0
    assert stats.perplexity.isnan()
    stats.update(torch.full((5,), 3))
    assert stats.entropy_bits == 0
    assert stats.perplexity == 1
    stats.reset()
    assert stats.counts.sum() == 0


def test_summed_counts_are_the_statistics_of_all_devices() -> None:
    first, second, both = CodebookStats(16), CodebookStats(16), CodebookStats(16)
    tokens = torch.randint(16, (2, 50), generator=torch.Generator().manual_seed(0))
    first.update(tokens[0])
    second.update(tokens[1])
    both.update(tokens)
    first.counts += second.counts
    assert first.perplexity == both.perplexity


def test_an_unknown_code_is_an_error() -> None:
    with pytest.raises(IndexError):
        CodebookStats(4).update(torch.tensor([4]))


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_checkerboard_is_a_fixed_pattern_of_its_height(period: int) -> None:
    rows, columns = torch.arange(16)[:, None], torch.arange(24)
    half = period // 2
    board = (rows // half + columns // half) % 2 * 2.0 - 1  # -1 and 1
    error = 0.02 * board.expand(3, 16, 24)
    assert fixed_pattern(error, 8).item() == pytest.approx(0.02 * 127.5, rel=1e-5)
    assert fixed_pattern(error + 0.3, 8).item() == pytest.approx(0.02 * 127.5, rel=1e-4)
    if period == 8:  # unseen at a shorter period
        assert fixed_pattern(error, 4).item() == pytest.approx(0, abs=1e-5)


def test_an_error_in_one_place_is_no_pattern() -> None:
    error = torch.zeros(3, 64, 128)
    error[:, 24:32, 40:48] = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert fixed_pattern(error, 8) < 0.01 * error.square().mean().sqrt() * 127.5 * 128**0.5
