"""The one door to decoding, and what it refuses."""

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.dynamics.gpt.model import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
CONFIG = GPTConfig(dim=24, num_layers=1, num_heads=2, context_steps=3, tie_embeddings=False)


def test_auto_is_the_first_method_of_the_kind():
    torch.manual_seed(0)
    model = build_dynamics(CONFIG, SPEC, 0).eval()
    tokens = torch.randint(0, 11, (2, 2, 2, 3))
    greedy = Sampling(greedy=True)
    auto, raster = (rollout(model, tokens, None, 3, greedy, method=m) for m in ("auto", "raster"))
    assert torch.equal(auto, raster)


KINDS = [
    CONFIG,
    MaskedConfig(dim=24, num_layers=1, num_heads=2, context_steps=3),
    WholeFrameConfig(24, 2, 0, 2, context_steps=3),
    WholeFrameConfig(24, 2, 1, 2, context_steps=3),
]


@pytest.mark.parametrize("config", KINDS)
def test_every_kind_scores_a_real_frame_as_its_network_does(config):
    """A masked model scores by its first pass."""
    torch.manual_seed(0)
    model = build_dynamics(config, SPEC, 0).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    tokens = torch.randint(0, 11, (2, 3, 2, 3))
    decoder = open_decoder(model)
    decoder.start(tokens[:, :1])
    for step in (1, 2):
        nats = decoder.score_next(tokens[:, step])
        real = model.score(tokens[:, : step + 1]).nats[:, step]
        assert torch.allclose(nats, real, atol=1e-4)
    assert nats.std() > 0.01


@pytest.mark.parametrize("config", KINDS)
def test_equal_examples_have_equal_futures_where_chances_are_common(config):
    torch.manual_seed(0)
    model = build_dynamics(config, SPEC, 0).eval()
    prompt = torch.randint(0, 11, (1, 2, 2, 3)).expand(3, -1, -1, -1)
    for common in (False, True):
        first, *others = rollout(model, prompt, None, 2, Sampling(common=common), num_futures=2)
        assert all(torch.equal(first, other) is common for other in others)
        assert not torch.equal(first[0], first[1])


def test_what_cannot_be_done_says_what_can():
    model = build_dynamics(CONFIG, SPEC, 0).eval()
    with pytest.raises(BadInput, match=r"decoding=maskgit: GPT can be decoded by: raster, spec"):
        open_decoder(model, method="maskgit")
    with pytest.raises(BadInput, match=r"num_iterations=3: raster has no such option.*slide_steps"):
        open_decoder(model, num_iterations=3)
    with pytest.raises(BadInput, match=r"dtype='int7': choose one of float32, bfloat16"):
        open_decoder(model, dtype="int7")


def test_a_description_makes_the_config_again():
    assert from_description(describe(CONFIG)) == CONFIG
    with pytest.raises(BadInput, match="'rnn' is unknown; known: gpt"):
        from_description({"name": "rnn"})
    with pytest.raises(BadInput, match="wings is unknown"):
        from_description({**describe(CONFIG), "wings": 2})
