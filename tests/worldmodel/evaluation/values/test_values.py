"""Values: the published numbers, and what returns and estimates mean."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from voc_files import frames, voc

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
from worldmodel.evaluation.values.rewards import RewardHead, fit_rewards

SPEC = TokenSpec((1, 2, 3), 5, 10.0, 1, (16, 24), "test")
PUBLISHED = {"atol": 1e-5, "rtol": 1e-5}


@torch.no_grad()
def test_published_rewards_values_and_densities(shared) -> None:
    network, io, weights, said = voc(shared)
    head = RewardHead(network.spec, weights["codebook"], hidden=())
    head.layers[0].load_state_dict({n: weights[f"reward.{n}"] for n in ("weight", "bias")})
    for number in (0, 1):
        loss = head.loss(frames(network, io["target"][number]), io["reward"][number][:, 0])
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
    tokens = torch.randint(0, 5, (600, 2, 3))
    rewards = (tokens[:, 0, 0] == tokens[:, 1, 2]) * 3.0 + 100
    head = fit_rewards(tokens[:500], rewards[:500], SPEC, steps=150)
    assert F.mse_loss(head(tokens[500:]), rewards[500:]) < 0.3 * rewards.var()
    again = fit_rewards(tokens[:500], rewards[:500], SPEC, steps=150)
    assert torch.equal(again(tokens), head(tokens))


def test_rewards_that_no_frame_shows_are_read_as_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 5, (600, 2, 3), generator=generator)
    rewards = torch.randn(600, generator=generator)
    head = fit_rewards(tokens[:300], rewards[:300], SPEC, steps=200)
    assert F.mse_loss(head(tokens[300:]), rewards[300:]) < 1.1 * rewards[300:].var()


@pytest.mark.parametrize("number", [10, 60])
def test_rewards_that_teach_nothing_are_refused(number: int) -> None:
    tokens, rewards = torch.zeros(number, 2, 3, dtype=torch.long), torch.ones(number)
    with pytest.raises(BadInput, match=rf"rewards of {number} train frames with deviation 0"):
        fit_rewards(tokens, rewards, SPEC, steps=1)
