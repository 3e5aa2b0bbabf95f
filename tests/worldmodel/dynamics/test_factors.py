"""Factorised vocabularies, of any number and size of factors."""

import pytest
import torch

from training.errors import BadInput
from worldmodel.dynamics.factors import Factors


@pytest.mark.parametrize("sizes", [(), (60,), (2, 30), (30, 2), (3, 4, 5)])
def test_a_token_is_its_factors(sizes):
    factors, tokens = Factors(sizes, 60), torch.arange(60).view(3, 20)
    parts = factors.split(tokens)
    assert parts.shape == (3, 20, max(1, len(sizes)))
    assert (parts < torch.tensor(sizes or (60,))).all()
    assert torch.equal(factors.join(parts), tokens)


def test_the_first_factor_varies_fastest():
    assert Factors((512, 512), 2**18).split(torch.tensor([512 * 7 + 3])).tolist() == [[3, 7]]


def test_nats_are_those_of_the_product_distribution():
    torch.manual_seed(0)
    factors, logits = Factors((2, 3), 6), torch.randn(4, 5)
    first, second = (part.softmax(-1) for part in factors.parts(logits))
    probs = (second[:, :, None] * first[:, None, :]).flatten(1)  # token = f_0 + 2 f_1
    nats = factors.token_nll(
        logits[:, None].expand(4, 6, 5), factors.split(torch.arange(6)).expand(4, 6, 2)
    )
    torch.testing.assert_close(nats, -probs.log())
    assert torch.equal(factors.join(factors.best(logits)), probs.argmax(-1))


@pytest.mark.parametrize("sizes", [(2, 3), (7,), (0, 60)])
def test_sizes_must_multiply_to_the_vocabulary(sizes):
    with pytest.raises(BadInput, match="give sizes that multiply to that"):
        Factors(sizes, 60)
