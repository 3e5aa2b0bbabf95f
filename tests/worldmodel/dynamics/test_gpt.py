"""The GPT: causality, conditioning, initialisation, counts, and that it learns."""

import math
from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPT, GPTConfig
from worldmodel.dynamics.positions import apply_rope, make_rope

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
LAYOUTS = ["none", "continuous", "binned"]
CONFIG = GPTConfig(dim=24, num_layers=2, num_heads=2, context_steps=4, tie_embeddings=False)


def make_model(layout: str = "continuous", config: GPTConfig = CONFIG) -> GPT:
    torch.manual_seed(0)
    return GPT(replace(config, layout=LayoutConfig(layout, num_bins=8)), SPEC, num_actions=2)


def make_clip(time: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 11, (2, time, 2, 3)), torch.randn(2, time, 2)


@pytest.mark.parametrize("positions", ["rope", "learned"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_token_changes_only_later_logits(layout: str, positions: str) -> None:
    model = make_model(layout, replace(CONFIG, positions=positions))
    tokens, actions = make_clip()
    logits = model(tokens, actions)
    assert logits.shape == (2, 4, 6, 11)
    changed = tokens.clone()
    changed[:, 1, 1, 0] = (changed[:, 1, 1, 0] + 1) % 11  # space 3 of step 1
    difference = (model(changed, actions) - logits).abs().amax(dim=(0, 3)).flatten()
    assert difference[: 6 + 4].max() == 0
    assert difference[6 + 4 :].min() > 0


@pytest.mark.parametrize(
    "precision", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
def test_learns_a_rule_that_needs_past_and_action(precision: torch.dtype) -> None:
    """Next frame = this frame shifted by the action: no frame alone predicts the next."""
    model = make_model("continuous", replace(CONFIG, dim=48, context_steps=3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(90):
        first = torch.randint(0, 11, (32, 1), generator=generator)
        shift = torch.randint(0, 2, (32, 2), generator=generator)
        values = torch.cat([first, first + shift.cumsum(1)], dim=1) % 11
        tokens = values[:, :, None, None].expand(-1, -1, 2, 3).contiguous()
        actions = shift[..., None].float().expand(-1, -1, 2)
        with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            loss = model.loss(tokens, actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * math.log(11) / 6  # without the action one token of six costs log 2


def test_rotary_scores_depend_only_on_relative_positions() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, 12), torch.randn(1, 1, 1, 12)

    def score(at: list[int], of: list[int]) -> torch.Tensor:
        rope_q, rope_k = (make_rope(torch.tensor([p]), 12, 100.0) for p in (at, of))
        return (apply_rope(query, rope_q) * apply_rope(key, rope_k)).sum()

    base = score([3, 2, 1], [1, 1, 0])
    torch.testing.assert_close(score([7, 5, 2], [5, 4, 1]), base)
    for moved in ([4, 2, 1], [3, 3, 1], [3, 2, 2]):
        assert (score(moved, [1, 1, 0]) - base).abs() > 1e-4


def test_initialisation_follows_the_table() -> None:
    config = replace(CONFIG, dim=96, positions="learned", bias=True)
    for name, parameter in make_model("continuous", config).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 1:
            assert (parameter == 1).all(), name
        else:
            residual = name.endswith(("attention.proj.weight", "down.weight"))
            expected = 0.02 / math.sqrt(4) if residual else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.15), name


def test_commavq_shape_has_the_published_number_of_parameters() -> None:
    """commaVQ's gpt2m has 307,052,544, one of them a head row of 1024 for its separator."""
    spec = TokenSpec((1, 8, 16), 1024, 20.0, 1, (128, 256), "commavq")
    config = GPTConfig(
        dim=1024,
        num_layers=24,
        num_heads=16,
        context_steps=20,
        positions="learned",
        qk_norm=False,
        bias=True,
        look_back=0,
        tie_embeddings=False,
    )
    with torch.device("meta"):
        model = GPT(config, spec, 0)
    assert model.num_parameters() == 307_052_544 - 1024
    assert model.num_positions == 2580
    positions_and_ids = (2580 + 1025) * 1024
    assert model.num_parameters(embeddings=False) == model.num_parameters() - positions_and_ids


def test_flops_count_matches_a_profile_of_forward_and_backward() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = make_model(
        "none", replace(CONFIG, dim=96, positions="learned", qk_norm=False, look_back=0)
    )
    tokens, _ = make_clip()
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model.loss(tokens).backward()
    measured = counter.get_total_flops() / (2 * model.layout.sequence_length(4))
    assert measured == pytest.approx(model.flops_per_token(4), rel=0.08)
    attention = 12 * 2 * 96 * 28
    assert model.flops(2, 4) == pytest.approx(2 * 28 * model.flops_per_token(4))
    assert model.flops_per_token(4) - model.flops_per_token(4, causal=True) == attention / 2


def test_options_change_the_network() -> None:
    base = make_model("none")
    tokens, _ = make_clip()
    exact = make_model("none", replace(CONFIG, gelu="none"))
    exact.load_state_dict(base.state_dict())
    assert 0 < (exact(tokens) - base(tokens)).abs().max() < 1e-2
    wide = make_model("none", replace(CONFIG, rope_theta=10.0))
    wide.load_state_dict(base.state_dict())
    assert not torch.equal(wide(tokens), base(tokens))
    tied = make_model("none", replace(CONFIG, tie_embeddings=True))
    assert base.num_parameters() - tied.num_parameters() == 11 * 24
    assert tied.num_parameters(embeddings=False) == base.num_parameters(embeddings=False)
    assert tied(tokens).shape == base(tokens).shape
    plain = make_model("none", replace(CONFIG, qk_norm=False))
    assert base.num_parameters() - plain.num_parameters() == 2 * 2 * 12
    noisy = make_model("none", replace(CONFIG, dropout=0.5))
    assert not torch.equal(noisy(tokens), noisy(tokens))
    assert torch.equal(noisy.eval()(tokens), noisy(tokens))
    thick = make_model("none", replace(CONFIG, mlp_ratio=2.0))
    assert base.num_parameters() - thick.num_parameters() == 2 * 2 * 2 * 24 * 24


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiles_without_a_graph_break(layout: str) -> None:
    model = make_model(layout)
    tokens, actions = make_clip()
    drop = torch.tensor([True, False])
    compiled = torch.compile(model.loss, fullgraph=True)
    torch.testing.assert_close(
        compiled(tokens, actions, drop), model.loss(tokens, actions, drop), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_blocks_share_what_was_compiled_once(layout: str) -> None:
    model = make_model(layout)
    tokens, actions = make_clip()
    made: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        made.append(graph)
        return graph.forward

    for block in model.blocks:
        block.compile(dynamic=False, backend=backend)
    torch._dynamo.reset()
    model.loss(tokens, actions).backward()
    assert len(made) == 1


def test_gpt_refuses() -> None:
    model = make_model()
    tokens, actions = make_clip(5)
    with pytest.raises(BadInput, match="5 frames, but the model sees 1 to 4"):
        model(tokens, actions)
    with pytest.raises(BadInput, match="actions of shape"):
        model(tokens[:, :3], actions[..., :1])
    with pytest.raises(BadInput, match="tokens of shape"):
        model(tokens[:, :3].transpose(2, 3), actions)
    with pytest.raises(BadInput, match="needs actions"):
        model(tokens[:, :3])
    for settings in (
        {"dim": 25},
        {"dim": 10},  # head_dim 5 does not split over three axes
        {"positions": "none"},
        {"gelu": "relu"},
        {"dropout": 1.0},
        {"context_steps": 1},
    ):
        with pytest.raises(BadInput):
            replace(CONFIG, **settings)
