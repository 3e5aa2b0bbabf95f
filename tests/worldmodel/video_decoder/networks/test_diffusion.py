"""Schedules, parameterisations and DDIM against what is known exactly."""

import itertools

import pytest
import torch
from torch import Tensor

from worldmodel.video_decoder.networks.config import PREDICTIONS, SCHEDULES
from worldmodel.video_decoder.networks.diffusion import Diffusion, ddim

MEAN, STD = 0.7, 0.3
BOTH = list(itertools.product(SCHEDULES, PREDICTIONS))


def best(diffusion: Diffusion, x: Tensor, t: Tensor) -> Tensor:
    """The best prediction at x_t for frames that are normal with MEAN and STD."""
    alpha, sigma = (value[:, None].double() for value in diffusion.scales(t))
    of_frames, of_noise = (value[:, None].double() for value in diffusion.weights(t))
    off = x - alpha * MEAN
    total = (alpha * STD) ** 2 + sigma**2
    return of_frames * (MEAN + alpha * STD**2 / total * off) + of_noise * (sigma / total * off)


def made(diffusion: Diffusion, noise: Tensor, num_steps: int) -> Tensor:
    return ddim(lambda x, t: best(diffusion, x, t), diffusion, noise, num_steps)


@pytest.mark.parametrize(("schedule", "predicts"), BOTH)
def test_a_gaussian_whose_score_is_known_is_sampled(schedule: str, predicts: str) -> None:
    """The ODE carries noise z to MEAN + STD z; DDIM's error falls in line with its steps."""
    diffusion = Diffusion(schedule, predicts)
    noise = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)[:, None]
    errors = [
        float((made(diffusion, noise, n) - (MEAN + STD * noise)).abs().max()) for n in (64, 128)
    ]
    assert errors[1] < 0.02
    assert 1.7 < errors[0] / errors[1] < 2.3  # of first order


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_parameterisations_agree(schedule: str) -> None:
    """The same network, told in v, eps or x0, gives the same frames step by step."""
    noise = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frames = {p: made(Diffusion(schedule, p), noise, 12) for p in PREDICTIONS}
    assert torch.allclose(frames["v"], frames["x0"], atol=1e-9)
    # At pure noise eps says nothing of x0, so the first step is not that of the others.
    assert torch.allclose(frames["v"], frames["eps"], atol=0.05)


@pytest.mark.parametrize(("schedule", "predicts"), BOTH)
def test_a_target_gives_frames_and_noise_back(schedule: str, predicts: str) -> None:
    diffusion = Diffusion(schedule, predicts)
    draw = torch.Generator().manual_seed(1)
    frames, noise = (torch.randn(7, 2, 3, dtype=torch.float64, generator=draw) for _ in range(2))
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    x = diffusion.noised(frames, noise, t)
    found = diffusion.split(diffusion.target(frames, noise, t), x, t)
    assert torch.allclose(found[0], frames, atol=1e-4)
    assert torch.allclose(found[1], noise, atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_v_is_the_velocity(schedule: str) -> None:
    """dx_t/dt, for the cosine schedule up to the factor pi / 2."""
    diffusion = Diffusion(schedule, "v")
    frames, noise = (torch.full((1, 1), value, dtype=torch.float64) for value in (0.3, -1.2))
    at, step = torch.tensor([0.4], dtype=torch.float64), 1e-6
    later, sooner = (diffusion.noised(frames, noise, at + d) for d in (step, -step))
    factor = 1.0 if schedule == "straight" else torch.pi / 2
    slope = (later - sooner) / (2 * step) / factor
    assert torch.allclose(slope, diffusion.target(frames, noise, at), atol=1e-6)


def test_frames_stay_within_the_limit() -> None:
    diffusion = Diffusion("cosine", "v")
    noise = torch.full((1, 1), 3.0)
    wild = ddim(lambda x, t: best(diffusion, x, t).float(), diffusion, noise, 8)
    limits = (-torch.ones(1, 1), torch.ones(1, 1))
    kept = ddim(lambda x, t: best(diffusion, x, t).float(), diffusion, noise, 8, limits)
    assert float(wild) > 1.0
    assert float(kept) <= 1.0


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (MEAN, STD)])
@pytest.mark.parametrize(("schedule", "predicts"), BOTH)
def test_a_guess_is_the_best_one_of_a_normal(
    schedule: str, predicts: str, mean: float, std: float
) -> None:
    """By regression on draws."""
    diffusion = Diffusion(schedule, predicts)
    draw = torch.Generator().manual_seed(2)
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    frames, noise = (torch.randn(2, 400_000, dtype=t.dtype, generator=draw) for _ in range(2))
    frames = mean + std * frames
    x, target = diffusion.noised(frames, noise, t), diffusion.target(frames, noise, t)
    off = x - x.mean(1, keepdim=True)
    guesses = diffusion.guess(x, t, mean, std)
    for truth, found in zip((frames, target), guesses, strict=True):
        slope = (truth * off).mean(1, keepdim=True) / off.square().mean(1, keepdim=True)
        assert torch.allclose(found, truth.mean(1, keepdim=True) + slope * off, atol=0.03)
    if not mean:
        assert torch.equal(diffusion.guess(x, t)[1], guesses[1])
