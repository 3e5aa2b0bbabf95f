"""A distribution as its likeliest tokens: exact where all are listed, hand-computed where not."""

import math

import pytest
import torch
from tiny_gpt import make_clip, make_model

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.factors import Factors
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.evaluation.challenges import top_tokens as module
from worldmodel.evaluation.challenges.top_tokens import (
    TopTokens,
    next_step,
    score_top,
    top_scores,
    top_tokens,
)

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
NONE = LayoutConfig("none")


def networks():
    torch.manual_seed(0)
    masked = MaskedConfig(
        dim=24, num_layers=1, num_heads=2, context_steps=4, num_prompt_frames=2, look_back=0
    )
    whole = WholeFrameConfig(dim=24, num_layers=2, num_heads=2, context_steps=4, layout=NONE)
    factored = MaskedConfig(
        24, 1, 2, context_steps=4, num_prompt_frames=2, factors=(3, 4), look_back=0
    )
    twelve = TokenSpec((1, 2, 3), 12, 10.0, 1, (16, 24), "test")
    found = [build_dynamics(masked, SPEC, 0), build_dynamics(whole, SPEC, 0)]
    found.append(build_dynamics(factored, twelve, 0))
    for network in found:
        for parameter in network.parameters():
            parameter.data += torch.randn_like(parameter)
    return [network.eval() for network in (*found, make_model("none"))]


@torch.no_grad()
@pytest.mark.parametrize("number", range(4))
def test_all_tokens_listed_is_the_cross_entropy(number, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 11 * 5)  # five tokens at once
    network, (tokens, _) = networks()[number], make_clip(3)
    tops = top_scores(network, tokens, None, first=1)
    nats = network.score(tokens).nats[:, 1:]
    torch.testing.assert_close(tops.nats.float(), nats, atol=1e-5, rtol=0)
    torch.testing.assert_close(tops.nats_listed.float(), nats, atol=1e-5, rtol=0)
    assert tops.listed.all()
    few = top_scores(network, tokens, None, first=1, top=3)
    assert 0 < few.listed.float().mean() < 1
    assert torch.equal(few.nats[few.listed], tops.nats[few.listed])
    assert (few.nats_listed[~few.listed] == torch.inf).all()


def test_tokens_not_listed_share_what_is_left():
    probs = torch.tensor([0.5, 0.1, 0.25, 0.05, 0.1])
    top = top_tokens(probs.log(), 2)
    assert top.indices.tolist() == [0, 2]
    assert (top.indices.dtype, top.values.dtype) == (torch.int32, torch.float32)
    for target, share in ((0, 0.5), (2, 0.25), (1, 0.25 / 3), (3, 0.25 / 3)):
        found = score_top(top, torch.tensor(target), 5)
        assert found.nats.item() == pytest.approx(-math.log(share), abs=1e-6)
        assert found.listed.item() == (target in (0, 2))
    assert score_top(top, torch.tensor(0), 5).nats_listed.item() == pytest.approx(math.log(1.5))
    # Some distribution over all five: the probabilities sum to 1.
    nats = [score_top(top, torch.tensor(t), 5).nats.item() for t in range(5)]
    assert sum(math.exp(-n) for n in nats) == pytest.approx(1)


def test_a_joint_distribution_is_the_product_of_its_factors():
    factors, logits = Factors((2, 3, 2), 12), torch.randn(4, 7)
    joint = factors.joint(logits)
    tokens = torch.arange(12).expand(4, 12)
    nats = factors.token_nll(logits[:, None].expand(4, 12, 7), factors.split(tokens))
    torch.testing.assert_close(joint, -nats, atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_next_step_needs_no_real_token_of_it():
    masked, _, _, gpt = networks()
    tokens, _ = make_clip(3)
    found = next_step(masked, tokens[:, :2], None, top=11)
    again = top_scores(masked, tokens, None, first=2)
    targets = tokens[:, 2].flatten(1)
    torch.testing.assert_close(score_top(found, targets, 11).nats, again.nats[:, 0])
    with pytest.raises(BadInput, match="a submission needs a masked model"):
        next_step(gpt, tokens, None)


def test_values_that_leave_nothing_stay_finite():
    top = TopTokens(torch.tensor([3], dtype=torch.int32), torch.tensor([0.0]))
    assert 20 < score_top(top, torch.tensor(1), 5).nats.item() < 25
