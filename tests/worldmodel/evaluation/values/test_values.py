"""Values: the published numbers, and what returns and estimates mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from voc_files import frames, voc

from drives.tokens.drive import TokenDrive
from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.evaluation.values.estimates import (
    density_value,
    density_weights,
    discounted,
    num_counted,
    num_truncated,
    value_from_samples,
    whole_return,
)
from worldmodel.evaluation.values.rewards import RewardHead, fit_rewards, rewarded

SPEC = TokenSpec((1, 2, 3), 5, 10.0, 1, (16, 24), "test")
PUBLISHED = {"atol": 1e-5, "rtol": 1e-5}


@torch.no_grad()
def test_published_rewards_values_and_densities(shared) -> None:
    network, io, weights, said = voc(shared)
    head = RewardHead(network.spec, codebook=weights["codebook"], hidden=())
    head.layers[0].load_state_dict({n: weights[f"reward.{n}"] for n in ("weight", "bias")})
    for number in (0, 1):
        observed = frames(network, io["target"][number])[:, None]
        loss = head.loss(observed, io["reward"][number][:, 0])
        torch.testing.assert_close(loss, io["reward_loss"][number], **PUBLISHED)
    sampled = head(frames(network, io["value_samples"]))
    values = value_from_samples(sampled.repeat(25, 1), said["gamma"])
    torch.testing.assert_close(values, io["value_pred"], **PUBLISHED)
    torch.testing.assert_close(
        F.mse_loss(values, io["values"][:, 0]), io["value_loss"], **PUBLISHED
    )
    state = frames(network, io["context"][0])
    later = io["future"][1:]
    pairs = [torch.stack([state, frames(network, one)], dim=1) for one in later]
    logits = torch.stack([network.online(pair)[:, -1] for pair in pairs])
    rewards = head(frames(network, later))
    predicted = density_value(density_weights(logits, later), rewards)
    actual = torch.from_numpy(discounted(rewards.T.double().numpy(), said["gamma"])).float()
    assert len(later) == said["jumps"]
    torch.testing.assert_close(predicted, io["density_pred"], **PUBLISHED)
    torch.testing.assert_close(actual, io["density_actual"], **PUBLISHED)
    torch.testing.assert_close(F.mse_loss(predicted, actual), io["density_loss"], **PUBLISHED)


def test_samples_of_the_discounted_future_give_the_return() -> None:
    """In a chain whose reward at step k is known."""
    gamma, rng = 0.8, np.random.default_rng(0)
    rewards = rng.normal(size=200)
    ahead = torch.from_numpy(rng.geometric(1 - gamma, 200_000) - 1).clamp(max=199)
    estimate = value_from_samples(torch.from_numpy(rewards)[ahead], gamma)
    assert estimate.item() == pytest.approx(float(discounted(rewards, gamma)), abs=0.05)


def test_returns_end_where_they_say() -> None:
    ones = np.ones((2, num_counted(0.8, 0.01)))
    assert 1 - 0.8 ** ones.shape[1] >= 0.99
    np.testing.assert_allclose(whole_return(ones, 0.8), 5.0)
    assert np.all(discounted(ones, 0.8) < 5.0)
    assert [num_truncated(g) for g in (0.0, 0.5, 0.8, 0.9, 0.95)] == [1, 2, 5, 10, 10]
    assert num_counted(0.0, 0.01) == 1


def test_rewards_are_read_from_tokens() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 5, (600, 1, 2, 3))
    rewards = (tokens[:, 0, 0, 0] == tokens[:, 0, 1, 2]) * 3.0 + 100
    head = fit_rewards(tokens[:500], rewards[:500], SPEC, steps=150)
    assert head.loss(tokens[500:], rewards[500:]) < 0.3 * rewards.var()
    one, two = (fit_rewards(tokens[:50], rewards[:50], SPEC, steps=3) for _ in range(2))
    assert torch.equal(one(tokens), two(tokens))


def test_rewards_that_no_frame_shows_are_read_as_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 5, (600, 1, 2, 3), generator=generator)
    rewards = torch.randn(600, generator=generator)
    head = fit_rewards(tokens[:300], rewards[:300], SPEC, steps=200)
    assert head.loss(tokens[300:], rewards[300:]) < 1.1 * rewards[300:].var()


def test_rewards_of_changes_are_read_from_two_frames() -> None:
    """And drives that are too short for a stack give none."""
    clip = torch.randint(0, 3, (900, 2, 3), generator=torch.Generator().manual_seed(0))
    led = (clip[1:, 0, 0] == clip[:-1, 0, 0]).float()
    columns = np.append(led.numpy(), 0.0)[:, None].astype(np.float32)
    drives = [TokenDrive("long", "train", clip.numpy(), columns)]
    drives.append(TokenDrive("short", "train", clip[:1].numpy(), columns[:1]))
    errors = []
    for stack in (1, 2):
        stacks, rewards = rewarded(drives, 0, (2, 3), stack)
        assert torch.equal(stacks[-1], clip[-stack:])
        assert rewards[-1] == led[-1]
        head = fit_rewards(stacks[:700], rewards[:700], SPEC, steps=60)
        assert head(clip).shape == (901 - stack,)
        errors.append(head.loss(stacks[700:], rewards[700:]))
    assert errors[1] < 0.5 * errors[0]


def test_rewards_are_smoothed_over_a_span_and_motion_is_seen_by_convolutions() -> None:
    """A reward at every other step of a thing that moves, which no frame shows, is its mean."""
    generator = torch.Generator().manual_seed(0)
    drives = []
    for number in range(40):
        speed = number % 2
        at = (torch.arange(30) * speed + int(torch.randint(5, (), generator=generator))) % 5
        clip = torch.zeros(30, 2, 5, dtype=torch.long)
        clip[torch.arange(30), 0, at] = 3
        led = np.arange(30) % 2 * 2.0 * speed
        drives.append(TokenDrive(str(number), "train", clip.numpy(), led[:, None].astype("f4")))
    spec = replace(SPEC, grid=(1, 2, 5), vocab_size=6, factors=(2, 3))
    stacks, raw = rewarded(drives[1:2], 0, (2, 5), 2)
    assert raw.unique().tolist() == [0, 2]
    stacks, smooth = rewarded(drives, 0, (2, 5), 2, span=2)
    assert smooth[29 + 5 : 29 + 20].unique().tolist() == [1]
    head = fit_rewards(stacks, smooth, spec, 60, convolutions=(8, 8))
    assert head.loss(stacks, smooth) < 0.2 * smooth.var()
    assert head(stacks[:, None]).shape == (len(stacks), 1, 1)


@pytest.mark.parametrize("number", [10, 60])
def test_rewards_that_teach_nothing_are_refused(number: int) -> None:
    tokens, rewards = torch.zeros(number, 1, 2, 3, dtype=torch.long), torch.ones(number)
    with pytest.raises(BadInput, match=rf"rewards of {number} train frames with deviation 0"):
        fit_rewards(tokens, rewards, SPEC, steps=1)
