"""Decoding in small integers: samples as `sample` does, many futures as one, and refusals."""

import pytest
import torch
from tiny_gpt import make_clip, make_model

from training.errors import BadInput
from worldmodel.codec.exact import numbers
from worldmodel.codec.exact.decoder import PortableDecoder, drawn
from worldmodel.codec.exact.mode import ExactArithmetic
from worldmodel.decoding import Sampling
from worldmodel.decoding.config import Guidance
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.decoding.sampling import sample


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_k=0),
        Sampling(temperature=0.5, top_k=0),
        Sampling(top_k=5),
        Sampling(top_k=0, top_p=0.7),
        Sampling(greedy=True),
    ],
)
def test_sums_of_integers_draw_as_sums_of_floats(sampling: Sampling) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2000, 40, generator=generator)
    logits[:, 7] = logits[:, 3]  # equals
    uniform = torch.rand(2000, generator=generator)
    ours, theirs = drawn(logits, sampling, uniform), sample(logits, sampling, uniform)
    assert (ours == theirs).float().mean() > 0.999  # exp is a table: a number may lie at an edge


def test_the_likeliest_of_equals_is_the_first() -> None:
    logits = torch.zeros(1, 5)
    assert drawn(logits, Sampling(greedy=True), torch.zeros(1)).item() == 0
    last = torch.full((1,), 1 - 2.0**-24)
    assert drawn(logits, Sampling(top_k=3), last).item() == 2


def test_many_futures_are_drawn_as_each_alone() -> None:
    model = make_model()
    tokens, actions = make_clip(2, batch=2)
    together = rollout(model, tokens, actions, 4, num_futures=2, method="portable")
    assert together.shape == (2, 2, 4, 2, 3)
    assert not torch.equal(together[:, 0], together[:, 1])
    decoder = open_decoder(model, Sampling(), "portable")
    assert isinstance(decoder, PortableDecoder)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.stack([torch.rand(6, 4, generator=generator) for _ in range(4)])
    for row in range(4):  # example-major
        one = row // 2
        decoder.start(tokens[one : one + 1], actions[one : one + 1])
        for step in range(4):
            decoder._uniform = uniform[step, :, row : row + 1].T
            grid = decoder.extend(decoder.draw, actions[one : one + 1, step + 1])
            assert torch.equal(grid[0], together[one, row % 2, step])


def test_a_score_is_that_of_the_distributions_that_are_drawn_from() -> None:
    tokens, actions = make_clip(3, batch=1)
    nats = {}
    for method in ("raster", "portable"):
        decoder = open_decoder(make_model(), Sampling(), method)
        decoder.start(tokens[:, :2], actions[:, :1])
        nats[method] = decoder.score_next(tokens[:, 2], actions[:, 1])
    assert torch.allclose(nats["raster"], nats["portable"], atol=0.5)
    assert not torch.equal(nats["raster"], nats["portable"])


def test_the_grain_is_that_of_bytes() -> None:
    """Near the floats, and not those of the codec's wide integers."""
    model = make_model().for_decoding()
    tokens, actions = make_clip(3)
    plain = model(tokens, actions)
    found = {}
    for name, grain in {"wide": numbers.WIDE, "bytes": numbers.BYTES}.items():
        with torch.inference_mode(), ExactArithmetic(model, grain):
            found[name] = model(tokens, actions)
    errors = {name: (logits - plain).abs().mean() / plain.std() for name, logits in found.items()}
    assert errors["wide"] < 1e-3 < errors["bytes"] < 0.1


def test_a_group_norm_is_that_of_torch() -> None:
    x = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    norm = torch.nn.GroupNorm(3, 6)
    norm.weight.data += torch.arange(6)
    norm.bias.data += torch.arange(6)
    exact = numbers.group_norm(x, 3, norm.weight, norm.bias, norm.eps)
    assert torch.allclose(exact, norm(x), atol=1e-4)


def test_what_it_cannot_do_is_refused() -> None:
    model = make_model()
    with pytest.raises(BadInput, match=r"leave decoding\.dtype out"):
        open_decoder(model, Sampling(), "portable", dtype="int8")
    with pytest.raises(BadInput, match="no guidance"):
        open_decoder(model, Sampling(guidance=Guidance(scale=2.0, condition="actions")), "portable")
    with pytest.raises(BadInput, match="computes on a CPU; give device=cpu"):
        open_decoder(model.to("meta"), Sampling(), "portable")


def test_wide_layers_are_summed_as_well() -> None:
    """More products than the int32 of the file's kernel holds: here sums are in float64."""
    model = make_model(dim=256)
    tokens, actions = make_clip(2, batch=1)
    assert rollout(model, tokens, actions, 1, method="portable").shape == (1, 1, 1, 2, 3)
