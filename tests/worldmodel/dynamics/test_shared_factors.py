"""Tokens that share a factor share a part of their embedding, in training and in decoding."""

from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import DynamicsConfig, LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

PLAIN = TokenSpec((1, 2, 3), 12, fps=10, frames_per_step=1, image_size=(16, 24), tokenizer="none")
SPEC = replace(PLAIN, factors=(4, 3))
LAYOUT = LayoutConfig(actions="continuous")
KINDS = {
    "gpt": GPTConfig(dim=16, num_layers=1, num_heads=1, context_steps=3, layout=LAYOUT),
    "whole": WholeFrameConfig(
        dim=16, num_layers=2, inner_layers=1, num_heads=1, context_steps=3, layout=LAYOUT
    ),
}


def network(kind: str, share: bool | None = True, spec: TokenSpec = SPEC) -> Dynamics:
    fields = {**vars(KINDS[kind]), "share_factors": share}
    config: DynamicsConfig = type(KINDS[kind])(**fields)
    torch.manual_seed(0)
    return build_dynamics(config, spec, 2)


def clip() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(12, (2, 3, 2, 3), generator=generator)
    return tokens, torch.randn(2, 3, 2, generator=generator)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_its_own_vector_and_those_of_its_factors(kind: str) -> None:
    embed = network(kind).embed
    entry = embed.parametrizations.weight
    own, (first, second) = entry.original, entry[0].tables
    rows = embed.weight
    torch.testing.assert_close(rows[7], own[7] + first[3] + second[1])  # 7 = 3 + 4 * 1
    torch.testing.assert_close(rows[12:], own[12:])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learned_of_a_token_moves_those_that_share_a_factor(kind: str) -> None:
    model = network(kind)
    before = model.embed.weight.detach().clone()
    optimizer = torch.optim.SGD(model.embed.parameters(), lr=1.0)
    model.embed.weight[7].sum().backward()
    optimizer.step()
    moved = (model.embed.weight.detach() - before).abs().sum(-1)[:12] > 0
    shares = [token % 4 == 3 or token // 4 == 1 for token in range(12)]
    assert moved.tolist() == shares


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_reads_the_same_rows_from_a_plain_table(kind: str) -> None:
    model = network(kind).eval()
    plain = model.for_decoding()
    assert not any("parametrizations" in name for name in plain.state_dict())
    assert any("parametrizations" in name for name in model.state_dict())
    tokens, actions = clip()
    assert torch.equal(plain(tokens, actions), model(tokens, actions))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_load_into_a_fresh_network(kind: str) -> None:
    model, other = network(kind), network(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    other.load_state_dict(model.state_dict())
    tokens, actions = clip()
    assert torch.equal(other.loss(tokens, actions), model.loss(tokens, actions))


@pytest.mark.parametrize("kind", KINDS)
def test_off_is_the_plain_table(kind: str) -> None:
    model = network(kind, share=False)
    assert isinstance(dict(model.named_parameters())["embed.weight"], torch.nn.Parameter)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_without_factors_are_refused(kind: str) -> None:
    with pytest.raises(BadInput, match="share_factors=true"):
        network(kind, spec=PLAIN)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("spec", "shares"), [(SPEC, True), (PLAIN, False)])
def test_null_shares_where_tokens_have_factors(kind: str, spec: TokenSpec, shares: bool) -> None:
    own = network(kind, share=None, spec=spec).state_dict()
    fixed = network(kind, share=shares, spec=spec).state_dict()
    assert own.keys() == fixed.keys()


def test_a_factored_embedding_shares_already() -> None:
    with pytest.raises(BadInput, match="share_factors"):
        GPTConfig(factors=(4, 3), tie_embeddings=False, look_back=0, share_factors=True)
