"""MaskGIT: the cache changes nothing, and every option is at work."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.maskgit import MaskGIT, schedule
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.masked.model import Masked

SPEC = TokenSpec((1, 2, 3), 12, 10.0, 1, (16, 24), "test")
CONFIG = MaskedConfig(
    dim=24,
    num_layers=2,
    num_heads=2,
    context_steps=4,
    num_prompt_frames=2,
    factors=(3, 4),
    look_back=0,
)
GREEDY = Sampling(greedy=True)


def make_model(layout: str = "continuous", **settings) -> Masked:
    torch.manual_seed(0)
    config = replace(CONFIG, layout=LayoutConfig(layout, num_bins=8), **settings)
    model = build_dynamics(config, SPEC, 2)
    with torch.no_grad():
        for parameter in model.parameters(recurse=False):
            parameter.normal_()
    return model


def make_clip(time: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 12, (2, time, 2, 3)), torch.randn(2, time, 2)


def naive_greedy(model, tokens, actions, horizon, num_steps):
    """Every step reads the whole window anew; the surest tokens settle first."""
    model.eval()
    start, space = 0, 6
    for _ in range(horizon):
        if tokens.shape[1] - start == 4:
            start += 1
        window = torch.cat([tokens[:, start:], torch.zeros_like(tokens[:, :1])], dim=1)
        factors = model.factors.split(window.flatten(2))
        masked = torch.zeros(factors.shape[:3], dtype=torch.bool)
        masked[:, -1] = True
        for step in range(num_steps):
            acting = actions[:, start : start + window.shape[1] - 1]
            logits = model(factors, masked, acting)[:, -1]
            chances = [part.softmax(-1).max(-1).values for part in model.factors.parts(logits)]
            drawn = torch.where(masked[:, -1, :, None], model.factors.best(logits), factors[:, -1])
            factors[:, -1] = drawn
            sure = torch.where(masked[:, -1], chances[0] * chances[1], torch.inf)
            left = math.ceil(math.cos((step + 1) / num_steps * math.pi / 2) * space)
            left = left if step < num_steps - 1 else 0
            masked[:, -1] = sure.argsort(1).argsort(1) < left
        frame = model.factors.join(factors[:, -1]).view(-1, 1, 2, 3)
        tokens = torch.cat([tokens, frame], dim=1)
    return tokens[:, -horizon:]


@torch.no_grad()
@pytest.mark.parametrize("look_back", [0, 3])
@pytest.mark.parametrize("layout", ["none", "continuous", "binned"])
def test_the_cache_changes_nothing_and_the_window_slides(layout, look_back):
    model = make_model(layout, look_back=look_back)
    tokens, actions = make_clip()
    ours = rollout(
        model, tokens[:, :2], actions, 7, GREEDY, num_steps=3, order="confidence", slide_steps=1
    )
    assert torch.equal(ours[:, 0], naive_greedy(model, tokens[:, :2], actions, 7, 3))


def test_a_prompt_of_the_whole_context_slides_at_once():
    model = make_model()
    tokens, actions = make_clip()
    greedy = rollout(model, tokens[:, :4], actions, 2, GREEDY, num_steps=1, slide_steps=1)
    shorter = rollout(model, tokens[:, 1:4], actions[:, 1:], 1, GREEDY, num_steps=1)
    assert torch.equal(greedy[:, :, 0], shorter[:, :, 0])
    other = rollout(model, tokens[:, :4], actions, 2, GREEDY, num_steps=1, slide_steps=3)
    assert not torch.equal(greedy, other)


def test_futures_are_rows_of_their_own():
    model = make_model()
    tokens, actions = make_clip()
    drop = torch.tensor([True, False])
    both = rollout(model, tokens[:, :2], actions, 4, GREEDY, 3, drop, order="confidence")
    assert both.shape == (2, 3, 4, 2, 3)
    alone = rollout(model, tokens[1:, :2], actions[1:], 4, GREEDY, order="confidence")
    assert torch.equal(both[1:, 2:], alone)
    free = rollout(model, tokens[:, :2], actions, 4, Sampling(seed=3), 3)
    assert not torch.equal(free[:, 0], free[:, 1])


@torch.no_grad()
@pytest.mark.parametrize("layout", ["none", "continuous"])
def test_prompts_of_many_clips_are_read_together_and_go_on_as_alone(layout):
    """Over a slide of the context, with the numbers that decide a clip's frames."""
    model, many, horizon = make_model(layout), 5, 4
    tokens, actions = torch.randint(0, 12, (many, 3, 2, 3)), torch.randn(many, 3 + horizon, 2)
    together, alone = MaskGIT(model, Sampling()), MaskGIT(model, Sampling())
    uniform, noise = torch.rand(horizon, 2, 2, many, 6), torch.rand(horizon, 2, many, 6)

    def future(decoder: MaskGIT, clips: slice) -> torch.Tensor:
        decoder.start(tokens[clips], actions[clips, :2])
        frames = []
        for step in range(horizon):
            decoder.begin(actions[clips, 2 + step])
            drawn = decoder.fill(uniform[step][:, :, clips], noise[step][:, clips])
            frames.append(decoder.append(drawn))
        return torch.stack(frames, dim=1)

    one_by_one = [future(alone, slice(i, i + 1)) for i in range(many)]
    assert torch.equal(future(together, slice(None)), torch.cat(one_by_one))


def test_a_seed_decides_everything():
    model = make_model()
    tokens, actions = make_clip()
    first, again, other = (
        rollout(model, tokens[:, :2], actions, 4, Sampling(seed=seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_temperature_and_nucleus_shape_what_is_drawn():
    """With one pass, tokens are draws from the tempered distributions of their factors."""
    model = make_model("none")
    tokens = make_clip()[0][:1, :2]
    decoder = MaskGIT(model, num_steps=1)
    decoder.start(tokens)
    hidden = torch.ones(1, 6, dtype=torch.bool)
    logits = decoder.logits(torch.zeros(1, 6, 2, dtype=torch.int64), hidden)[0, 0]
    for sampling in (
        Sampling(),
        Sampling(temperature=0.3),
        Sampling(temperature=3.0),
        Sampling(top_k=2),
        Sampling(top_p=0.5),
    ):
        drawn = rollout(model, tokens, None, 1, sampling, 2000, num_steps=1)[0, :, 0].flatten(1)
        shares = torch.zeros(2, 4)
        for k in range(2):
            values = model.factors.split(drawn[:, 0])[:, k]
            shares[k] = torch.bincount(values, minlength=4) / 2000
        for k, part in enumerate(model.factors.parts(logits)):
            probs = (part / sampling.temperature).softmax(-1)
            ordered = probs.sort(descending=True).values
            nucleus = int((ordered.cumsum(0) < sampling.top_p).sum()) + 1
            keep = nucleus if sampling.top_p < 1 else sampling.top_k
            probs = torch.where(probs >= ordered[min(keep, len(ordered)) - 1], probs, 0.0)
            expected = probs / probs.sum()
            torch.testing.assert_close(shares[k, : len(part)], expected, atol=0.04, rtol=0)


def test_orders_and_steps_differ():
    model = make_model()
    tokens, actions = make_clip()
    options = [{"num_steps": n, "order": o} for n in (1, 2, 5) for o in ("random", "confidence")]
    seen = [rollout(model, tokens[:, :2], actions, 6, GREEDY, **o) for o in options]
    assert torch.equal(seen[0], seen[1])  # one step settles all at once
    assert len({str(x.tolist()) for x in seen}) == 5


@pytest.mark.parametrize("num_tokens", [1, 6, 256])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 8, 1000])
def test_every_step_settles_something_and_the_last_all(num_steps, num_tokens):
    steps = schedule(num_steps, num_tokens)
    left = [num_tokens, *(masked for _, masked in steps)]
    assert left[-1] == 0
    assert all(a > b for a, b in itertools.pairwise(left))
    assert len(steps) == num_steps or num_tokens < 20 * num_steps


def test_a_model_in_training_decodes_without_dropout():
    model = make_model(dropout=0.5).train()
    tokens, actions = make_clip()
    one, two = (rollout(model, tokens[:, :2], actions, 3, GREEDY) for _ in range(2))
    assert torch.equal(one, two)
    assert model.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps=0: give a whole number from 1 on"),
        ({"order": "raster"}, "order='raster': choose one of random, confidence"),
        ({"slide_steps": 4}, "slide_steps=4: give a whole number from 1 to 3"),
        ({"dtype": torch.bfloat16}, "maskgit has no such option"),
        ({"method": "raster"}, "Masked can be decoded by: maskgit"),
    ],
)
def test_bad_options_say_what_to_do(options, message):
    with pytest.raises(BadInput, match=message):
        open_decoder(make_model(), **options)


def test_bad_prompts_say_what_to_do():
    model = make_model()
    tokens, actions = make_clip()
    decoder = open_decoder(model)
    with pytest.raises(BadInput, match="a prompt of 9 frames; the model reads 1 to 4"):
        decoder.start(tokens, actions)
    with pytest.raises(BadInput, match="num_futures=0"):
        decoder.start(tokens[:, :2], actions, 0)
    decoder.start(tokens[:, :2], actions)
    with pytest.raises(BadInput, match=r"next_frame needs actions \[2, 2\], got None"):
        decoder.next_frame()
