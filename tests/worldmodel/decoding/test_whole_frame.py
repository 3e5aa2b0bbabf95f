"""Decoding of the whole-frame kind: equal to reading everything anew, and shared prompts."""

import copy
from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.dynamics.whole_frame.model import WholeFrame

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
GREEDY = Sampling(greedy=True)


def make_model(inner_layers: int, layout: str = "continuous") -> WholeFrame:
    torch.manual_seed(0)
    config = WholeFrameConfig(24, 4, inner_layers, 2, context_steps=4)
    model = build_dynamics(replace(config, layout=LayoutConfig(layout, num_bins=8)), SPEC, 2).eval()
    for parameter in model.parameters():  # far from its start, where every logit is about 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def make_prompt(time: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 11, (2, time, 2, 3)), 3 * torch.randn(2, 12, 2)


def reread(
    model: WholeFrame, tokens: torch.Tensor, actions: torch.Tensor, horizon: int, slide: int
) -> torch.Tensor:
    """Greedy futures by the network's own forward, which reads the whole window every time."""
    begin, limit = 0, model.config.context_steps
    if tokens.shape[1] == limit:
        begin = slide
    for _ in range(horizon):
        time = tokens.shape[1]
        if time - begin == limit:
            begin += slide
        frame = torch.zeros_like(tokens[:, :1])
        for cell in range(6):
            window = torch.cat([tokens, frame], dim=1)[:, begin:]
            best = model(window, actions[:, begin:])[:, -1].argmax(-1)
            frame.view(len(tokens), -1)[:, cell] = best[:, cell]
        tokens = torch.cat([tokens, frame], dim=1)
    return tokens[:, -horizon:]


@pytest.mark.parametrize(
    ("inner_layers", "layout", "prompt_steps"),
    [(0, "none", 4), (0, "continuous", 1), (2, "binned", 1), (2, "binned", 4)],
)
def test_the_cache_changes_nothing(inner_layers: int, layout: str, prompt_steps: int) -> None:
    model = make_model(inner_layers, layout)
    tokens, actions = make_prompt(prompt_steps)
    given = None if layout == "none" else actions
    for slide in (1, 2):
        futures = rollout(model, tokens, given, 5, GREEDY, slide_steps=slide)
        assert torch.equal(futures[:, 0], reread(model, tokens, actions, 5, slide))
    assert len(futures.unique()) > 1


@pytest.mark.parametrize("inner_layers", [0, 1])
def test_samples_follow_the_distribution_of_the_score(inner_layers: int) -> None:
    """The first two cells' joint frequencies over many futures equal exp(-nats) of the score."""
    model = make_model(inner_layers)
    model.norm.weight.data *= 3  # sharp enough that a wrong distribution shows
    tokens, actions = make_prompt(2)
    tokens, actions = tokens[:1], actions[:1]
    num = 4_000
    futures = rollout(model, tokens, actions, 1, Sampling(seed=3), num)[0, :, 0].flatten(1)
    pairs = torch.cartesian_prod(torch.arange(11), torch.arange(11))
    frames = futures[:1].repeat(121, 1)
    frames[:, :2] = pairs
    clips = torch.cat([tokens.expand(121, -1, -1, -1), frames.view(-1, 1, 2, 3)], dim=1)
    with torch.no_grad():
        nats = model.score(clips, actions.expand(121, -1, -1)).nats[:, -1, :2]
    expected = (-nats.sum(-1)).exp()
    assert expected.sum() == pytest.approx(1, abs=1e-4)
    counts = torch.bincount(futures[:, 0] * 11 + futures[:, 1], minlength=121)
    error = (expected * (1 - expected) / num).sqrt()
    assert ((counts / num - expected).abs() < 5 * error + 1e-4).all()
    assert expected.max() > 10 / 121  # a uniform sampler would fail


@pytest.mark.parametrize("inner_layers", [0, 1])
def test_futures_share_the_prompt_and_differ(inner_layers: int) -> None:
    model = make_model(inner_layers)
    tokens, actions = make_prompt(3)
    futures = rollout(model, tokens, actions, 5, Sampling(seed=1), 3)
    assert futures.shape == (2, 3, 5, 2, 3)
    assert not torch.equal(futures[:, 0], futures[:, 1])
    again = rollout(model, tokens, actions, 5, Sampling(seed=1), 3)
    assert torch.equal(futures, again)
    greedy = rollout(model, tokens, actions, 5, GREEDY, 3)
    assert torch.equal(greedy, greedy[:, :1].expand_as(greedy))
    assert torch.equal(greedy[:, 0], rollout(model, tokens, actions, 5, GREEDY)[:, 0])
    drop = torch.tensor([True, False])
    dropped = rollout(model, tokens, actions * 50, 5, GREEDY, 2, drop)
    assert torch.equal(dropped[0], rollout(model, tokens, actions, 5, GREEDY, 2, drop)[0])


def test_the_trunk_runs_once_per_frame_and_its_model_stays_as_it_is() -> None:
    model = make_model(1)
    tokens, actions = make_prompt(1)
    before = copy.deepcopy(model.state_dict())
    decoder = open_decoder(model.train(), Sampling())
    calls: list[tuple[int, ...]] = []
    decoder.model.blocks[0].register_forward_hook(
        lambda module, args, out: calls.append(tuple(out.shape[:2]))
    )
    decoder.start(tokens, actions[:, :0])
    for step in range(5):
        decoder.next_frame(actions[:, step])
    # The prompt, three frames, and two for which the full context was read anew.
    assert calls == [(2, 6)] * 4 + [(2 * 3, 6), (2, 6)] * 2
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_each_network_has_its_own_method_and_bad_input_is_refused() -> None:
    with pytest.raises(BadInput, match=r"WholeFrame can be decoded by: whole$"):
        open_decoder(make_model(0), method="whole_raster")
    with pytest.raises(BadInput, match=r"WholeFrame can be decoded by: whole_raster$"):
        open_decoder(make_model(1), method="whole")
    with pytest.raises(BadInput, match="slide_steps=4: give a whole number from 1 to 3"):
        open_decoder(make_model(0), slide_steps=4)
    decoder = open_decoder(make_model(0), GREEDY)
    tokens, actions = make_prompt(5)
    with pytest.raises(BadInput, match="a prompt of 5 frames"):
        decoder.start(tokens, actions)
    with pytest.raises(BadInput, match="num_futures=0"):
        decoder.start(tokens[:, :2], actions, 0)
    decoder.start(tokens[:, :2], actions)
    with pytest.raises(BadInput, match=r"next_frame needs actions \[2, 2\], got None"):
        decoder.next_frame()
