"""Large vocabularies: the same loss and gradient, without ever holding all logits."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.gpt import heads
from worldmodel.dynamics.gpt.heads import FactoredHead, chunked_token_nll, token_nll
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

CONFIG = GPTConfig(
    dim=12, num_layers=1, num_heads=1, context_steps=2, look_back=0, tie_embeddings=False
)


def spec(vocab_size: int) -> TokenSpec:
    return TokenSpec((1, 4, 4), vocab_size, 10.0, 1, (64, 64), "test")


def saved(config: GPTConfig, vocab_size: int) -> int:
    """Numbers in the largest tensor that a loss keeps for its backward pass."""
    model = GPT(config, spec(vocab_size), 0)
    largest = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.loss(torch.randint(0, vocab_size, (2, 2, 4, 4)))
    return largest


def test_chunks_give_the_same_loss_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(heads, "CHUNK_LOGITS", 50 * 3)  # three tokens at a time, the last two
    targets = torch.randint(0, 50, (11,))
    found = []
    for nats in (token_nll, chunked_token_nll):
        torch.manual_seed(1)
        x = torch.randn(11, 7, requires_grad=True)
        weight = torch.randn(50, 7, requires_grad=True)
        loss = nats(x, weight, targets)
        (loss * torch.arange(11)).sum().backward()
        found.append((loss.detach(), x.grad, weight.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("tied", [False, True])
def test_a_large_vocabulary_trains_the_same_in_chunks(
    tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = torch.randint(0, 60, (2, 2, 4, 4))
    found = []
    for large in (61, 60):  # the vocabulary counts as large from here on
        monkeypatch.setattr("worldmodel.dynamics.gpt.model.LARGE_VOCABULARY", large)
        monkeypatch.setattr(heads, "CHUNK_LOGITS", 60 * 5)
        torch.manual_seed(0)
        model = GPT(replace(CONFIG, tie_embeddings=tied), spec(60), 0)
        loss = model.loss(tokens)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_loss_keeps_no_logits_of_all_tokens() -> None:
    """16 tokens count; a weight of 12 x vocabulary is kept, and nothing larger."""
    assert saved(CONFIG, 16_383) >= 16 * 16_383
    assert saved(CONFIG, 16_384) <= 12 * 16_385
    assert saved(replace(CONFIG, factors=(128, 128)), 16_384) < 16_384


@pytest.mark.parametrize("factors", [(4, 3), (2, 3, 2), (3, 4)])
@torch.no_grad()
def test_a_factorised_head_is_a_distribution_over_whole_tokens(factors: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    head = FactoredHead(factors, 6)
    for parameter in head.parameters():
        parameter.normal_()
    x = torch.randn(5, 6)
    joint = head(x)
    torch.testing.assert_close(joint.exp().sum(-1), torch.ones(5))
    for token in range(math.prod(factors)):
        targets = torch.full((5,), token)
        torch.testing.assert_close(head.token_nll(x, targets), -joint[:, token])
    # Not a product of independent factors: the second depends on the first.
    first = joint.exp().view(5, -1, factors[0])
    given = first / first.sum(1, keepdim=True)
    assert (given[..., 0] - given[..., 1]).abs().max() > 0.05


def test_a_factorised_gpt_scores_what_its_logits_say() -> None:
    torch.manual_seed(0)
    model = GPT(replace(CONFIG, factors=(5, 4)), spec(20), 0)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    tokens = torch.randint(0, 20, (2, 2, 4, 4))
    logits, scores = model(tokens), model.score(tokens)
    expected = -logits.log_softmax(-1).gather(-1, tokens.flatten(2)[..., None])[..., 0]
    torch.testing.assert_close(scores.nats, expected)
    assert torch.equal(scores.correct, logits.argmax(-1) == tokens.flatten(2))
    torch.testing.assert_close(model.loss(tokens), expected[:, 1:].mean())


def test_a_factorised_gpt_of_2_to_the_18_is_small() -> None:
    with torch.device("meta"):
        whole = GPT(CONFIG, spec(2**18), 0)
        factored = GPT(replace(CONFIG, factors=(512, 512)), spec(2**18), 0)
    assert whole.num_parameters() - factored.num_parameters() > 2 * 12 * (2**18 - 3 * 512)


@pytest.mark.parametrize("factors", [(5, 5), (20,), (20, 1)])
def test_factors_that_are_not_the_vocabulary_are_refused(factors: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="vocabulary has 20"):
        GPT(replace(CONFIG, factors=factors), spec(20), 0)
