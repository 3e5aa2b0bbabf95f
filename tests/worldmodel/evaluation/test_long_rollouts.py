"""Measures of long rollouts, on the known-entropy world and on curves whose answer is known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from known_models import KnownModel

from drives.tokens.spec import TokenSpec
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.text import TextContext
from worldmodel.evaluation.long_rollouts import (
    bits_by_horizon,
    histogram_distances,
    seconds_until_doubled,
    token_counts,
)
from worldmodel.known_entropy.world import KnownEntropyWorld

WORLD = KnownEntropyWorld()


def samples(num, steps):
    drawn = [WORLD.sample(steps, [9, number]) for number in range(num)]
    tokens, actions = (np.stack(part) for part in zip(*drawn, strict=True))
    return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(actions)


def model(kind, context):
    found = KnownModel(kind)
    found.config = SimpleNamespace(context_steps=context)
    return found


@pytest.mark.parametrize("context", [2, 3, 5, 40])
def test_every_step_after_the_prompt_is_scored_once_given_what_is_before_it(context):
    tokens, actions = samples(3, 17)
    prompt = 1 if context == 2 else 2
    bits = bits_by_horizon(model("oracle", context), tokens, actions, prompt)
    expected = WORLD.optimal_nll(tokens.numpy(), actions.numpy())[:, prompt - 1 :]
    np.testing.assert_allclose(bits, expected.mean((-2, -1)) / math.log(2))


@torch.no_grad()
def test_imagined_frames_are_read_with_their_captions():
    spec = TokenSpec((1, 2, 2), 8, 10.0, 1, (16, 16), "test")
    layout = LayoutConfig(actions="none", text_tokens=2, text_width=5)
    config = GPTConfig(dim=24, num_layers=1, num_heads=2, context_steps=4, layout=layout)
    torch.manual_seed(0)
    network = build_dynamics(config, spec, 0).eval()
    for parameter in network.parameters():  # far from the start: captions matter
        parameter.data += 0.5 * torch.randn_like(parameter) * (parameter.ndim > 1)
    tokens = torch.randint(0, 8, (2, 7, 2, 2))
    index = torch.tensor([[0, 0, 1, 2, 1, 0, 2], [2, 1, 1, 0, 0, 2, 1]])
    captions = TextContext(3 * torch.randn(3, 2, 5), index)
    bits = bits_by_horizon(network, tokens, None, 2, captions)
    for start, end, first in ((0, 4, 2), (2, 6, 4), (3, 7, 6)):
        window = TextContext(captions.embeddings, index[:, start:end])
        nats = network.score(tokens[:, start:end], captions=window).nats.mean(-1).double()
        known = nats[:, first - start :].numpy() / math.log(2)
        np.testing.assert_allclose(bits[:, first - 2 : end - 2], known, atol=1e-6)
    assert np.abs(bits - bits_by_horizon(network, tokens, None, 2)).max() > 0.01


def test_an_oracle_is_at_home_in_the_world_and_lost_in_the_dreams_of_a_uniform_model():
    tokens, actions = samples(20, 40)
    own = bits_by_horizon(model("oracle", 4), tokens, actions, 2).mean()
    assert own == pytest.approx(WORLD.entropy_bits(), rel=0.05)
    noise = torch.randint(0, 8, tokens.shape, generator=torch.Generator().manual_seed(0))
    assert bits_by_horizon(model("oracle", 4), noise, actions, 2).mean() > 2 * own
    flat = bits_by_horizon(model("uniform", 4), noise, actions, 2)
    np.testing.assert_allclose(flat, 3)


def test_histograms_of_one_distribution_are_near_and_of_a_collapse_far():
    tokens, _ = samples(20, 41)
    drives = [str(i) for i in range(20)]
    real, other = (token_counts(part, 8, 10) for part in (tokens[:, 1:], tokens.flip(0)[:, 1:]))
    assert real.shape == (20, 4, 8)
    assert (real.sum(-1) == 160).all()
    same = histogram_distances(real, other, drives)
    assert len(same) == 4
    assert all(d.value == pytest.approx(0) for d in same)  # the same clips in another order
    collapsed = token_counts(0 * tokens[:, 1:], 8, 10)
    for estimate in histogram_distances(collapsed, real, drives):
        assert estimate.value == pytest.approx(7 / 8, abs=0.03)
        assert estimate.low <= estimate.value <= estimate.high


def test_the_second_of_doubling_is_interpolated_and_has_an_interval():
    seconds = [0.5, 1.0, 1.5, 2.0]
    slopes = np.array([[0.9], [1.0], [1.1]])
    excess = 0.1 + slopes * 0.1 * np.arange(4)  # twice as much one step later, more or less
    found = seconds_until_doubled(excess, seconds, ["a", "b", "c"])
    assert found.value == pytest.approx(1.0)
    assert found.low < 1 < found.high
    assert (found.num_clips, found.num_drives) == (3, 3)
    never = seconds_until_doubled(0 * excess + 0.1, seconds, ["a", "b", "c"])
    assert never.value == 2.0
    assert seconds_until_doubled(-excess, seconds, ["a", "b", "c"]).value is None
