"""Decoding: the cache changes nothing, every sampling flag changes something."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tiny_gpt import LAYOUTS, POSITIONS, make_clip, make_model
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.rollout import rollout
from worldmodel.decoding.sampling import sample
from worldmodel.decoding.weights import for_decoding
from worldmodel.dynamics.gpt.model import GPT, Block


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
        real, seen = tokens[:, step].flatten(1), []

        def choose(logits: Tensor, cells: slice, real: Tensor = real, seen: list = seen) -> Tensor:
            seen.append(logits)
            return real[:, cells]

        frame = decoder.extend(choose, actions[:, step - 1])
        assert torch.equal(frame, tokens[:, step])
        torch.testing.assert_close(torch.cat(seen, 1), expected[:, step], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_of_real_frames_are_the_model_s_own(layout: str) -> None:
    model = make_model(layout)
    tokens, actions = make_clip(4)
    expected = model.score(tokens, actions).nats
    decoder = Decoder(model)
    decoder.start(tokens[:, :1], actions)
    for step in range(1, 4):
        nats = decoder.score_next(tokens[:, step], actions[:, step - 1])
        torch.testing.assert_close(nats, expected[:, step], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("layout", "positions", "slide"),
    [
        *((layout, positions, 2) for layout in LAYOUTS for positions in POSITIONS),
        *((LAYOUTS[-1], positions, slide) for positions in POSITIONS for slide in (1, 3)),
    ],
)
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


def test_a_rolling_window_attends_to_the_frames_in_sight_and_remembers_what_they_knew() -> None:
    """In every layer, a position of the stream sees the last 4 frames, its own included."""
    model, longer = make_model(), make_model(context=9)
    longer.load_state_dict(model.state_dict())
    tokens, actions = make_clip(9)
    step = torch.arange(longer.num_positions) // longer.layout.step_length
    seen = (step[:, None] - step < 4) & torch.ones(len(step), len(step)).tril().bool()
    x, rope = longer.embed_clip(tokens, actions, None), longer.rope(0, longer.num_positions)
    for block in longer.blocks:
        assert isinstance(block, Block)
        query, key, value = block.attention._project(block.attention_norm(x), rope)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = x + block.attention.proj(out.transpose(1, 2).flatten(2))
        x = x + block._mlp(x)
    logits = longer.logits(x[:, longer.layout.predicting_positions(9)[4:].flatten()])
    expected = F.cross_entropy(logits.mT, tokens[:, 4:].flatten(1), reduction="none")
    scores = {}
    for window in ("roll", "slide"):
        decoder = Decoder(model, slide_steps=1, window=window)
        decoder.start(tokens[:, :4], actions)
        frames = [decoder.score_next(tokens[:, t], actions[:, t - 1]) for t in range(4, 9)]
        scores[window] = torch.cat(frames, dim=1)
    torch.testing.assert_close(scores["roll"], expected, atol=2e-4, rtol=2e-4)
    assert (scores["roll"] - scores["slide"]).abs().max() > 0.01


def test_a_rolling_window_of_one_layer_equals_reading_anew() -> None:
    """Keys and values depend on their own position only, so no older frame lives on in them."""
    model = make_model("none", look_back=0)
    model.blocks = model.blocks[:1]
    model.config = dataclasses.replace(model.config, num_layers=1)
    prompt = make_clip(3)[0]
    roll, slide = (
        rollout(model, prompt, None, 6, Sampling(), window=window, slide_steps=2)
        for window in ("roll", "slide")
    )
    assert torch.equal(roll, slide)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_top_k_keeps_exactly_k_where_logits_tie(dtype: torch.dtype) -> None:
    tied = torch.tensor([0.0, 2.0, 1.0, 1.0, 3.0, 1.0], dtype=dtype)
    actual = frequencies(tied, Sampling(top_k=3))
    expected = torch.tensor([0.0, 2.0, 1.0, 0.0, 3.0, 0.0]).exp()
    expected[[0, 3, 5]] = 0
    torch.testing.assert_close(actual, expected / expected.sum(), atol=0.015, rtol=0)
    # As bf16 networks make them: the 50th ties with others, a few times at least.
    rows = torch.randn(8, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    levels = torch.linspace(0, 1, 2001)[:-1]
    for row in rows:
        tokens = sample(row.expand(len(levels), -1), Sampling(temperature=9.0), levels)
        assert len(tokens.unique()) == 50


def test_top_p_keeps_the_first_of_equally_likely_tokens() -> None:
    probs = torch.tensor([0.2, 0.2, 0.2, 0.2, 0.2])
    actual = frequencies(probs.log(), Sampling(top_p=0.59))
    torch.testing.assert_close(actual, torch.tensor([1, 1, 1, 0, 0]) / 3, atol=0.015, rtol=0)


def test_top_p_keeps_the_fewest_that_reach_p() -> None:
    probs = torch.tensor([0.15, 0.5, 0.05, 0.3])
    actual = frequencies(probs.log(), Sampling(top_p=0.6))
    torch.testing.assert_close(actual, torch.tensor([0, 0.625, 0, 0.375]), atol=0.015, rtol=0)
    assert frequencies(probs.log(), Sampling(top_p=0.01))[1] == 1


def test_the_default_keeps_the_50_likeliest_of_many() -> None:
    drawn = frequencies(torch.linspace(0, 1, 1000), Sampling())
    assert drawn[-50:].gt(0).all()
    assert not drawn[:-50].any()


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
        logits.append(decoder.score_next(tokens[:, 0], actions[:, 2]))
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
        {"greedy": True, "top_k": 5},
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
    with pytest.raises(BadInput, match="window='ring': choose one of slide, roll"):
        rollout(model, tokens[:, :2], actions, 1, window="ring")
    with pytest.raises(BadInput, match="window=roll: this model learned where in its context"):
        rollout(make_model(positions="learned"), tokens[:, :2], actions, 1, window="roll")
    with pytest.raises(BadInput, match="num_futures=0"):
        rollout(model, tokens[:, :2], actions, 1, num_futures=0)
    with pytest.raises(BadInput, match="horizon=0"):
        rollout(model, tokens[:, :2], actions, 0)
