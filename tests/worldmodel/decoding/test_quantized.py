"""Eight bits: every product is that of the rounded numbers, and the rounding is bounded."""

import dataclasses
import math

import pytest
import torch
from tiny_gpt import LAYOUTS, SPEC, make_clip, make_model
from torch import nn

from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.config import WAYS
from worldmodel.decoding.quantized import MAX_ROWS, TILE, Int8Cache, Int8Linear, why_not_int8
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.rollout import rollout
from worldmodel.decoding.weights import DTYPES, for_decoding
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

CPU = torch.device("cpu")
LLAMA = GPTConfig(
    dim=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    norm="rms",
    mlp="swiglu",
    context_steps=4,
    tie_embeddings=True,
    layout=LayoutConfig(actions="none"),
)


def rounded(x: torch.Tensor) -> torch.Tensor:
    """By the definition: the nearest of 255 numbers, the largest of which is the largest of x."""
    scale = x.abs().amax(-1, keepdim=True) / 127
    return (x / scale).round() * scale


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("outputs", [TILE, 2 * TILE + 5])
@pytest.mark.parametrize("rows", [1, 3, MAX_ROWS + 1])
@torch.no_grad()
def test_a_linear_layer_is_that_of_rounded_weights(bias: bool, outputs: int, rows: int) -> None:
    torch.manual_seed(0)
    exact = nn.Linear(50, outputs, bias=bias)
    exact.weight[3] *= 100  # a channel's scale is its own affair
    x = torch.randn(2, rows, 50)
    ours, theirs = Int8Linear(exact)(x), exact(x)
    half_steps = exact.weight.abs().amax(1) / 254
    assert ((ours - theirs).abs() <= half_steps * x.abs().sum(-1, keepdim=True) + 1e-5).all()
    assert not torch.allclose(ours, theirs, rtol=1e-4)
    exact.weight.copy_(rounded(exact.weight))
    torch.testing.assert_close(ours, exact(x), rtol=1e-5, atol=1e-4)


def test_inputs_of_zero_and_weights_of_zero_give_the_bias() -> None:
    exact = nn.Linear(6, 4).requires_grad_(False)
    exact.weight[1] = 0
    torch.testing.assert_close(Int8Linear(exact)(torch.zeros(1, 6)), exact.bias[None])
    assert Int8Linear(exact)(torch.randn(1, 6))[0, 1] == exact.bias[1]


@pytest.mark.parametrize("heads", [2, 6])
@torch.no_grad()
def test_the_cache_attends_to_rounded_keys_and_values(heads: int) -> None:
    """Step by step what a float32 cache makes of numbers that were rounded before."""
    torch.manual_seed(0)
    positions, channels = 2 * TILE + 7, 12
    ours = Int8Cache(2, 3, 2, positions, channels)
    exact = KVCache(2, 3, 2, positions, channels, torch.float32, CPU)

    def write(new: int, start: int) -> None:
        for layer in range(2):
            keys, values = (torch.randn(len(exact.keys[0]), 2, new, channels) for _ in range(2))
            ours.write(layer, start, keys, values)
            exact.write(layer, start, rounded(keys), rounded(values))

    def compare(new: int) -> None:
        write(new, exact.length)
        for layer in range(2):
            query = torch.randn(len(exact.keys[0]), new, heads, channels).transpose(1, 2)
            out, expected = (cache.attend(layer, query, 0.3) for cache in (ours, exact))
            torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)

    write(TILE + 10, 0)
    ours.length = exact.length = TILE + 10
    compare(1)
    ours, exact = ours.expand(2), exact.expand(2)
    compare(5)  # as guesses, of which two are right: what follows is overwritten
    ours.length = exact.length = exact.length + 2
    compare(3)
    ours.forget(TILE // 3)
    exact.forget(TILE // 3)
    assert ours.length == exact.length
    compare(TILE + 1)


def test_the_cache_counts_a_byte_per_number_and_what_rows_end_with() -> None:
    cache = Int8Cache(3, 2, 4, TILE, 32)
    cache.length = TILE // 2
    keys, values = 32 * (TILE + 8) // 2 + 4 * TILE // 2, (32 + 8) * TILE // 2
    assert cache.num_bytes == 3 * 2 * 4 * (keys + values)


def test_bytes_per_token_are_those_of_tables_biases_norms_and_cache() -> None:
    model = make_model()
    decoder = Decoder(for_decoding(model, "int8"))
    decoder.start(*make_clip(3))
    tables = 0
    for layer in [*model.blocks.modules(), model.head]:
        if isinstance(layer, nn.Linear):  # all narrow: two tiles, of whole eights
            padded = 16 * math.ceil(layer.out_features / 16)
            tables += layer.in_features * (padded + 2 * 8) + 4 * layer.out_features
    others = sum(p.numel() for name, p in model.blocks.named_parameters() if p.ndim == 1)
    assert decoder.bytes_per_token == tables + 4 * others + decoder.cache.num_bytes


def nats(model: GPT, dtype: str | None) -> torch.Tensor:
    tokens, actions = make_clip(6)
    decoder = Decoder(for_decoding(model, dtype))
    decoder.start(tokens[:, :2], actions, num_futures=2)
    many = tokens.repeat_interleave(2, 0), actions.repeat_interleave(2, 0)
    steps = [decoder.score_next(many[0][:, t], many[1][:, t - 1]) for t in range(2, 6)]
    return torch.stack(steps, dim=1)


def models() -> dict[str, GPT]:
    llama = GPT(LLAMA, SPEC, 0).eval()
    for parameter in llama.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return {layout: make_model(layout) for layout in LAYOUTS} | {"llama": llama}


@pytest.mark.parametrize("kind", [*LAYOUTS, "llama"])
def test_scores_stay_close_to_the_model_s_own(kind: str) -> None:
    torch.manual_seed(0)
    model = models()[kind]
    exact, low = nats(model, None), nats(model, "int8")
    assert 0 < (low - exact).abs().mean() < 0.03 * exact.mean()
    assert isinstance(model.blocks[0].up, nn.Linear)  # the model itself is untouched


def test_futures_in_eight_bits_are_mostly_those_in_32() -> None:
    model, (tokens, actions) = make_model(), make_clip(3)
    exact, low = (
        rollout(model, tokens, actions, 1, Sampling(greedy=True), num_futures=3, dtype=dtype)
        for dtype in (None, "int8")
    )
    assert low.shape == exact.shape == (2, 3, 1, 2, 3)
    assert (low == exact).float().mean() > 0.7
    long = [
        rollout(model, tokens, actions, 9, Sampling(seed=3), dtype="int8", window="roll", **how)
        for how in ({}, {"method": "speculative"}, {"method": "diagonal", "lag": 3})
    ]
    assert torch.equal(long[0], long[1])
    assert torch.equal(long[0], long[2])


def test_a_head_of_factors_stays_as_it_is() -> None:
    config = dataclasses.replace(LLAMA, factors=(3, 4), tie_embeddings=False, look_back=0)
    spec = dataclasses.replace(SPEC, vocab_size=12)
    model = GPT(config, spec, 0).eval()
    low = for_decoding(model, "int8")
    assert isinstance(low.blocks[0].down, Int8Linear)
    assert isinstance(low.head.heads[0], nn.Linear)
    assert rollout(model, make_clip(2)[0], None, 3, dtype="int8").shape == (2, 1, 3, 2, 3)


def test_eight_bits_are_refused_where_they_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"dtype=int8: .* the model is on meta; use bfloat16"):
        for_decoding(make_model().to("meta"), torch.int8)
    assert why_not_int8(CPU) is None
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["qnnpack"])
    assert "built without" in (why_not_int8(CPU) or "")


def test_the_settings_offer_every_type_of_weights() -> None:
    assert list(WAYS["dtype"]) == list(DTYPES)


def test_some_rows_of_a_cache_are_written_and_read_alone() -> None:
    """Scales too: a row never gets another's."""
    generator = torch.Generator().manual_seed(0)
    keys, values, query = torch.randn(3, 2, 2, 5, 8, generator=generator)
    scales = torch.tensor([1.0, 50.0])[:, None, None, None]
    whole, parts = (Int8Cache(1, 2, 2, 9, 8) for _ in range(2))
    expected = whole.step(0, query, keys * scales, values, 1.0)
    found = [
        parts.rows(rows).step(0, query[rows], (keys * scales)[rows], values[rows], 1.0)
        for rows in (slice(0, 1), slice(1, 2))
    ]
    assert torch.equal(torch.cat(found), expected)
    assert torch.equal(parts.key_scales, whole.key_scales)
