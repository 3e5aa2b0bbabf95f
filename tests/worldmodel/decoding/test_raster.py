"""Decoding: the cache changes nothing, every sampling flag changes something."""

import pytest
import torch

from tokenizer.token_store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Decoder, Sampling, for_decoding, rollout, sample
from worldmodel.dynamics.gpt import GPT, GPTConfig
from worldmodel.dynamics.layout import LayoutConfig

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
LAYOUTS = ["none", "continuous", "binned"]
POSITIONS = ["rope", "learned"]


def make_model(
    layout: str = "continuous", positions: str = "rope", context: int = 4, look_back: int = 3
) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(
        dim=24,
        num_layers=2,
        num_heads=2,
        context_steps=context,
        positions=positions,
        bias=True,
        look_back=look_back,
        layout=LayoutConfig(actions=layout, num_bins=8),
    )
    model = GPT(config, SPEC, num_actions=2).eval()
    for name, parameter in model.named_parameters():  # far from the start: no two logits alike
        std = 1.0 if name.startswith(("embed", "position", "action")) else 0.5
        parameter.data += std * torch.randn_like(parameter) * (parameter.ndim > 1)
        if name.endswith(("query_norm.weight", "key_norm.weight")):
            parameter.data *= 3  # sharp attention: what is generated depends on the context
    return model


def make_clip(time: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, SPEC.vocab_size, (batch, time, 2, 3), generator=generator)
    return tokens, 3 * torch.randn(batch, time + 20, 2, generator=generator)


@torch.no_grad()
def uncached_greedy(
    model: GPT, tokens: torch.Tensor, actions: torch.Tensor, horizon: int, slide: int
) -> torch.Tensor:
    """One full forward per token, by the definition of the sliding window and nothing else."""
    first, limit = 0, model.config.context_steps
    for _ in range(horizon):
        now = tokens.shape[1]
        if now - first == limit:
            first = now - (limit - slide)
        tokens = torch.cat([tokens, torch.zeros_like(tokens[:, :1])], dim=1)
        frame = tokens[:, -1].flatten(1)
        for i in range(frame.shape[1]):
            logits = model(tokens[:, first:], actions[:, first:])
            frame[:, i] = logits[:, -1, i].argmax(-1)
            tokens[:, -1] = frame.view_as(tokens[:, -1])
    return tokens[:, -horizon:]


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("look_back", [0, 3])
def test_cached_logits_equal_the_forward_at_every_position(
    layout: str, positions: str, dropped: bool, look_back: int
) -> None:
    model = make_model(layout, positions, look_back=look_back)
    tokens, actions = make_clip(4)
    drop = torch.tensor([dropped, False])
    with torch.no_grad():
        expected = model(tokens, actions, drop)
    decoder = Decoder(for_decoding(model))
    decoder.start(tokens[:, :1], actions, drop_actions=drop)
    for step in range(1, 4):
        if decoder.actions is not None:
            decoder.actions = actions[:, :step]
        logits = decoder.open_frame()
        for i, token in enumerate(tokens[:, step].flatten(1).T):
            torch.testing.assert_close(logits, expected[:, step, i], atol=1e-4, rtol=1e-4)
            logits = decoder.append(token)
        decoder.tokens = tokens[:, : step + 1]


@pytest.mark.parametrize("slide", [1, 2, 3])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_greedy_rollout_equals_uncached_decoding_beyond_the_context(
    layout: str, positions: str, slide: int
) -> None:
    model = make_model(layout, positions)
    tokens, actions = make_clip(3)
    greedy = rollout(model, tokens, actions, 6, Sampling(greedy=True), slide_steps=slide)
    expected = uncached_greedy(model, tokens, actions, 6, slide)
    assert torch.equal(greedy[:, 0], expected)
    assert len(expected.unique()) > 3  # a constant answer would prove little


def test_slide_steps_decides_how_much_context_is_kept() -> None:
    model = make_model()
    tokens, actions = make_clip(3)
    short, long = (
        rollout(model, tokens, actions, 8, Sampling(greedy=True), slide_steps=slide)
        for slide in (1, 3)
    )
    assert torch.equal(short[:, :, 0], long[:, :, 0])  # the context fills with this frame
    assert not torch.equal(short, long)


def test_same_seed_same_futures_and_other_seed_other_futures() -> None:
    model = make_model()
    tokens, actions = make_clip(2)
    first, again, other = (
        rollout(model, tokens, actions, 3, Sampling(seed=seed), num_futures=3) for seed in (5, 5, 6)
    )
    assert first.shape == (2, 3, 3, 2, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:, 0], first[:, 1])


def test_several_futures_are_the_prompt_s_own() -> None:
    model = make_model()
    tokens, actions = make_clip(2)
    several = rollout(model, tokens, actions, 4, Sampling(greedy=True), num_futures=3)
    for example in range(2):
        one = slice(example, example + 1)
        alone = rollout(model, tokens[one], actions[one], 4, Sampling(greedy=True))
        assert torch.equal(several[example], alone[0].expand(3, -1, -1, -1))


@pytest.mark.parametrize("layout", ["continuous", "binned"])
def test_actions_of_the_horizon_steer_and_dropped_ones_do_not(layout: str) -> None:
    model = make_model(layout)
    tokens, actions = make_clip(2)
    changed = actions.clone()
    changed[:, 1:] = -changed[:, 1:]  # row 0 lies inside the prompt
    greedy = Sampling(greedy=True)
    assert not torch.equal(
        rollout(model, tokens, actions, 3, greedy), rollout(model, tokens, changed, 3, greedy)
    )
    drop = torch.tensor([True, True])
    assert torch.equal(
        rollout(model, tokens, actions, 3, greedy, drop_actions=drop),
        rollout(model, tokens, changed, 3, greedy, drop_actions=drop),
    )


def frequencies(logits: torch.Tensor, sampling: Sampling, draws: int = 20_000) -> torch.Tensor:
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(0))
    tokens = sample(logits.expand(draws, -1), sampling, uniform)
    return torch.bincount(tokens, minlength=logits.shape[-1]) / draws


LOGITS = torch.tensor([1.0, 3.0, 0.0, 2.0, -1.0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_the_logits(temperature: float) -> None:
    expected = (LOGITS / temperature).softmax(0)
    actual = frequencies(LOGITS, Sampling(temperature=temperature))
    torch.testing.assert_close(actual, expected, atol=0.015, rtol=0)


def test_top_k_keeps_the_k_likeliest_in_proportion() -> None:
    actual = frequencies(LOGITS, Sampling(top_k=2))
    expected = torch.zeros(5)
    expected[[1, 3]] = LOGITS[[1, 3]].softmax(0)
    torch.testing.assert_close(actual, expected, atol=0.015, rtol=0)


def test_top_p_keeps_the_fewest_that_reach_p() -> None:
    probs = torch.tensor([0.15, 0.5, 0.05, 0.3])
    actual = frequencies(probs.log(), Sampling(top_p=0.6))
    torch.testing.assert_close(actual, torch.tensor([0, 0.625, 0, 0.375]), atol=0.015, rtol=0)
    assert frequencies(probs.log(), Sampling(top_p=0.01))[1] == 1


def test_greedy_always_takes_the_likeliest() -> None:
    assert frequencies(LOGITS, Sampling(greedy=True))[1] == 1


def test_excluded_tokens_are_never_drawn_at_the_ends() -> None:
    uniform = torch.tensor([0.0, torch.nextafter(torch.ones(()), torch.zeros(()))])
    tokens = sample(LOGITS.expand(2, -1), Sampling(top_k=1), uniform)
    assert tokens.tolist() == [1, 1]


@pytest.mark.parametrize("settings", [{"temperature": 0.2}, {"top_k": 1}, {"top_p": 0.05}])
def test_sampling_settings_reach_the_rollout(settings: dict[str, float]) -> None:
    model = make_model()
    tokens, actions = make_clip(2)
    plain = rollout(model, tokens, actions, 4, Sampling(), num_futures=4)
    set_up = rollout(model, tokens, actions, 4, Sampling(**settings), num_futures=4)
    assert not torch.equal(plain, set_up)
    if "temperature" not in settings:
        greedy = rollout(model, tokens, actions, 4, Sampling(greedy=True), num_futures=4)
        assert torch.equal(set_up, greedy)


def test_bfloat16_weights_stay_close_and_are_used() -> None:
    model = make_model()
    tokens, actions = make_clip(3)
    logits = []
    for dtype in (None, torch.bfloat16):
        decoder = Decoder(for_decoding(model, dtype))
        decoder.start(tokens, actions)
        decoder.next_frame(actions[:, 2])
        decoder.cache.length = 10
        logits.append(decoder.feed(decoder.model.embed(tokens[:, 0, 0, :1])))
    difference = (logits[0] - logits[1]).abs().max()
    assert 0 < difference < 0.1 * logits[0].abs().max()
    assert model.blocks[0].up.weight.dtype == torch.float32  # the model itself is untouched


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"greedy": True, "temperature": 0.5},
    ],
)
def test_sampling_refuses(settings: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=r"sampling\."):
        Sampling(**settings)


def test_rollout_refuses_what_it_cannot_do() -> None:
    model = make_model()
    tokens, actions = make_clip(5)
    with pytest.raises(BadInput, match="prompt of 5 frames"):
        rollout(model, tokens, actions, 1)
    with pytest.raises(BadInput, match="3 action rows"):
        rollout(model, tokens[:, :2], actions[:, :3], 3)
    assert rollout(model, tokens[:, :2], actions[:, :4], 3).shape[2] == 3
    with pytest.raises(BadInput, match="needs actions"):
        rollout(model, tokens[:, :2], None, 1)
    with pytest.raises(BadInput, match="slide_steps=4"):
        rollout(model, tokens[:, :2], actions, 1, slide_steps=4)
    with pytest.raises(BadInput, match="num_futures=0"):
        rollout(model, tokens[:, :2], actions, 1, num_futures=0)
    with pytest.raises(BadInput, match="horizon=0"):
        rollout(model, tokens[:, :2], actions, 0)
