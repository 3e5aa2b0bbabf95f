"""The one door to decoding, and what it refuses."""

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.dynamics.gpt.model import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
CONFIG = GPTConfig(dim=24, num_layers=1, num_heads=2, context_steps=3, tie_embeddings=False)


def test_auto_is_the_first_method_of_the_kind():
    torch.manual_seed(0)
    model = build_dynamics(CONFIG, SPEC, 0).eval()
    tokens = torch.randint(0, 11, (2, 2, 2, 3))
    greedy = Sampling(greedy=True)
    auto, raster = (rollout(model, tokens, None, 3, greedy, method=m) for m in ("auto", "raster"))
    assert torch.equal(auto, raster)


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
