"""Actions in every block: what they change, how training starts, and decoding as in training."""

from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.config import Guidance
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.decoding.weights import weight_bytes
from worldmodel.dynamics.actions.layers import num_in_blocks
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
GPT = GPTConfig(dim=24, num_layers=2, num_heads=2, context_steps=4)
WHOLE = WholeFrameConfig(dim=24, num_layers=4, num_heads=2, context_steps=4)
KINDS = {
    "gpt": GPT,
    "gpt, swiglu, text": replace(
        GPT, mlp="swiglu", layout=LayoutConfig("continuous", text_tokens=2, text_width=5)
    ),
    "whole frame": WHOLE,
    "whole frame, inner layers": replace(WHOLE, inner_layers=2),
}
GREEDY = Sampling(greedy=True)
WAYS = ["added", "adaln"]


def make_model(kind: str, way: str, shaken: float = 0.0) -> Dynamics:
    torch.manual_seed(0)
    layout = replace(KINDS[kind].layout, actions="continuous", action_input=way)
    model = build_dynamics(replace(KINDS[kind], layout=layout), SPEC, 2).eval()
    for parameter in model.parameters():
        parameter.data += shaken * torch.randn_like(parameter)
    return model


def make_clip(time: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 11, (2, time, 2, 3)), 3 * torch.randn(2, 12, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_adaln_starts_as_without(kind: str) -> None:
    tokens, actions = make_clip()
    plain, ours = make_model(kind, "input"), make_model(kind, "adaln")
    assert not any(p.any() for name, p in ours.named_parameters() if "acting" in name)
    ours.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(ours(tokens, actions), plain(tokens, actions))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_action_reaches_every_block_of_its_frame_and_no_earlier_one(kind: str, way: str) -> None:
    model = make_model(kind, way, shaken=0.1)
    tokens, actions = make_clip()
    model.loss(tokens, actions).backward()
    for block in model.blocks:
        assert all(p.grad.abs().max() > 0 for p in block.acting.parameters())
    changed = actions.clone()
    changed[:, 1] += 5
    change = (model(tokens, changed) - model(tokens, actions)).abs().amax(dim=(0, 3))
    assert change[:2].max() == 0
    assert change[2:].min() > 0
    drop = torch.tensor([True, False])
    dropped = model(tokens, actions, drop)
    assert torch.equal(dropped[0], model(tokens, 9 * actions, drop)[0])


def reread(model: Dynamics, tokens: torch.Tensor, actions: torch.Tensor, horizon: int):
    """Greedy futures by the network's own forward; the oldest frame leaves a full context."""
    limit = model.config.context_steps
    begin = int(tokens.shape[1] == limit)
    for _ in range(horizon):
        time = tokens.shape[1]
        begin += int(time - begin == limit)
        frame = torch.zeros_like(tokens[:, :1])
        for cell in range(6):
            window = torch.cat([tokens, frame], dim=1)[:, begin:]
            best = model(window, actions[:, begin:])[:, -1].argmax(-1)
            frame.view(len(tokens), -1)[:, cell] = best[:, cell]
        tokens = torch.cat([tokens, frame], dim=1)
    return tokens[:, -horizon:]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_caches_change_nothing(kind: str, way: str) -> None:
    model = make_model(kind, way, shaken=0.1)
    tokens, actions = make_clip(2)
    with torch.no_grad():
        expected = reread(model, tokens, actions, 4)
    methods = ["raster", "speculative"] if kind.startswith("gpt") else ["auto"]
    for method in methods:
        futures = rollout(model, tokens, actions, 4, GREEDY, 1, method=method, slide_steps=1)
        assert torch.equal(futures[:, 0], expected), method
    assert len(expected.unique()) > 1


@pytest.mark.parametrize("way", WAYS)
def test_all_ways_to_decode_a_gpt_read_actions_in_its_blocks(way: str) -> None:
    model = make_model("gpt", way, shaken=0.1)
    tokens, actions = make_clip(2)
    raster = rollout(model, tokens, actions, 4, GREEDY)
    assert torch.equal(rollout(model, tokens, actions, 4, GREEDY, method="diagonal", lag=3), raster)
    rolled = rollout(model, tokens, actions, 2, GREEDY, window="roll")
    assert torch.equal(rolled, raster[:, :, :2])
    exact, lowered = (open_decoder(model, GREEDY, dtype=dtype) for dtype in (None, "int8"))
    for decoder in (exact, lowered):
        decoder.start(tokens[:, :1], actions[:, :0])
    frame = tokens[:, 1]
    nats, near = (decoder.score_next(frame, actions[:, 0]) for decoder in (exact, lowered))
    torch.testing.assert_close(nats, model.score(tokens, actions).nats[:, 1])
    torch.testing.assert_close(near, nats, atol=0.3, rtol=0.1)
    assert num_in_blocks(model.blocks) == 2 * (1 if way == "added" else 6) * 24 * 24
    assert weight_bytes(model) == weight_bytes(make_model("gpt", "input"))  # once per frame
    assert weight_bytes(lowered.model) < weight_bytes(model) / 2


@pytest.mark.parametrize("kind", ["gpt", "whole frame, inner layers"])
def test_guidance_without_actions_reads_none_in_the_blocks(kind: str) -> None:
    model = make_model(kind, "adaln", shaken=0.1)
    tokens, actions = make_clip(2)
    plain = rollout(model, tokens, actions, 3, GREEDY)
    guided = replace(GREEDY, guidance=Guidance(scale=5.0, condition="actions"))
    assert not torch.equal(rollout(model, tokens, actions, 3, guided), plain)
    everyone = torch.ones(2, dtype=torch.bool)
    unconditioned = rollout(model, tokens, actions, 3, GREEDY, 1, everyone)
    same = rollout(model, tokens, actions, 3, guided, 1, everyone)
    assert torch.equal(same, unconditioned)


@pytest.mark.parametrize("kind", ["gpt", "whole frame, inner layers"])
def test_recomputing_activations_changes_no_gradient(kind: str) -> None:
    model = make_model(kind, "adaln", shaken=0.1)
    grads = []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        model.loss(*make_clip()).backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt", "whole frame, inner layers"])
def test_blocks_compile(kind: str) -> None:
    model = make_model(kind, "adaln", shaken=0.1)
    tokens, actions = make_clip()
    expected = model.loss(tokens, actions)
    for block in model.blocks:
        block.compile(dynamic=False, fullgraph=True)
    torch.testing.assert_close(model.loss(tokens, actions), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gpt", "whole frame"])
def test_flops_count_a_weight_of_actions_once_per_frame(kind: str) -> None:
    plain, ours = (make_model(kind, way) for way in ("input", "adaln"))
    assert ours.flops(2, 4) - plain.flops(2, 4) == pytest.approx(
        2 * 4 * 6 * num_in_blocks(ours.blocks)
    )


def test_it_is_described_and_refused_where_it_would_do_nothing() -> None:
    config = replace(WHOLE, layout=LayoutConfig("continuous", action_input="adaln"))
    assert from_description(describe(config)) == config
    assert config.without_actions().layout == LayoutConfig("none")
    for actions in ("none", "binned"):
        with pytest.raises(BadInput, match=r"layout\.action_input=added"):
            LayoutConfig(actions, action_input="added")
    with pytest.raises(BadInput, match="action_input='adaln': choose one of input"):
        MaskedConfig(layout=LayoutConfig("continuous", action_input="adaln"))
