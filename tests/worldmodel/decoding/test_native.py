"""The C function computes what torch does, to rounding; where it cannot, torch does."""

import dataclasses
import gc
import os
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from tiny_gpt import SPEC, make_clip, make_model
from torch import Tensor, nn

from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.cached import CachedDecoder
from worldmodel.decoding.native import build
from worldmodel.decoding.native.step import MOST_ROWS, NativeStep, why_not_native
from worldmodel.decoding.quantized import Int8Cache
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.decoding.weights import for_decoding
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import CHOICES
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

PLAIN = GPTConfig(
    dim=24,
    num_layers=2,
    num_heads=2,
    context_steps=4,
    bias=True,
    layout=LayoutConfig(actions="none"),
    tie_embeddings=False,
)
COVERED = {
    "plain": {},
    "learned": {"positions": "learned"},
    "factored": {"positions": "factored", "look_back": 0},
    "without biases": {"bias": False},
    "without weights of norms": {"norm_affine": False},
    "without norms of heads": {"qk_norm": False},
    "exact gelu": {"gelu": "none"},
    "like Llama": {"num_heads": 6, "num_kv_heads": 2, "norm": "rms", "mlp": "swiglu", "dim": 48},
    "wide": {"dim": 80, "num_heads": 3, "head_channels": 48, "attention_scale": 0.2},
    "tied": {"tie_embeddings": True, "output_scale": 0.7},
    "all ids": {"head_ids": "all", "unused_ids": 2},
    "factors": {"factors": (3, 4), "look_back": 0},
}
NOT_COVERED = {
    "cross-attention to captions": {"context_dim": 8},
    "sinusoid=true": {"sinusoid": True},
    "layout.action_input=adaln": {
        "layout": LayoutConfig(actions="continuous", action_input="adaln")
    },
    "layout.action_input=added": {
        "layout": LayoutConfig(actions="continuous", action_input="added")
    },
}
# A number of the cache in 8 bits that lies between two may be rounded either way.
ROUNDING = {None: 2e-5, "bfloat16": 0.03, "int8": 0.01}


pytestmark = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler"
)


def network(**options) -> GPT:
    torch.manual_seed(0)
    spec = dataclasses.replace(SPEC, vocab_size=12) if "factors" in options else SPEC
    model = GPT(dataclasses.replace(PLAIN, **options), spec, 2).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def logits(model: GPT, dtype: str | None, kernel: str, futures: int) -> Tensor:
    """Of real frames, beyond the context."""
    tokens, actions = make_clip(4)
    decoder = open_decoder(model, None, "raster", dtype=dtype, kernel=kernel, slide_steps=2)
    decoder.start(tokens[:, :2], actions, num_futures=futures)
    seen: list[Tensor] = []

    def choose(given: Tensor, cells: slice) -> Tensor:
        seen.append(given)
        return tokens[:, len(seen) % 4].flatten(1).repeat_interleave(futures, 0)[:, cells]

    for step in range(4):
        decoder.extend(choose, actions[:, step].repeat_interleave(futures, 0))
    return torch.cat(seen, 1)


CASES = [(kind, None, 3) for kind in COVERED]
STORED = ("learned", "like Llama", "wide", "tied", "factors")  # whose caches and weights differ
CASES += [(kind, dtype, 3) for kind in STORED for dtype in ROUNDING if dtype]
CASES += [("plain", dtype, 1) for dtype in ROUNDING]


@pytest.mark.parametrize(("kind", "dtype", "futures"), CASES)
def test_logits_are_those_of_torch_to_rounding(kind: str, dtype: str | None, futures: int) -> None:
    model = network(**COVERED[kind])
    assert why_not_native(for_decoding(model, dtype)) is None
    native, expected = (logits(model, dtype, kernel, futures) for kernel in ("native", "torch"))
    assert (native - expected).abs().max() < ROUNDING[dtype] * expected.abs().max()
    assert not torch.equal(native, expected)  # another order of sums, so it did run


def test_every_choice_of_a_network_is_tried() -> None:
    """A new choice fails here until it is computed or refused."""
    tried = [dataclasses.asdict(PLAIN) | options for options in COVERED.values()]
    for name, known in CHOICES.items():
        assert {options[name] for options in tried} == set(known)


@pytest.mark.parametrize("reason", NOT_COVERED)
def test_other_networks_are_left_to_torch_in_one_line(
    reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network(**NOT_COVERED[reason])
    decoder = open_decoder(model, kernel="native")
    assert isinstance(decoder, CachedDecoder)
    assert decoder.native is None
    said = capsys.readouterr().out
    assert said == f"note: decoding.kernel=native: {reason}; torch computes instead\n"


@pytest.mark.parametrize(("layout", "positions"), [("continuous", "rope"), ("binned", "learned")])
def test_every_method_draws_the_tokens_of_torch(layout: str, positions: str) -> None:
    model = make_model(layout, positions)
    tokens, actions = make_clip(3)
    ways = ({}, {"method": "speculative", "num_draft": 4}, {"method": "diagonal", "lag": 3})
    for how in ways:
        ours, theirs = (
            rollout(model, tokens, actions, 5, Sampling(seed=3), 2, kernel=kernel, **how)
            for kernel in ("native", "torch")
        )
        assert torch.equal(ours, theirs)


def long_past(dtype: str | None) -> KVCache:
    """A cache of two layers that holds 700 positions, which attention reads in two parts."""
    shape = (2, 1, 2, 3 * 256, 16)
    eight = dtype == "int8"
    cache = Int8Cache(*shape) if eight else KVCache(*shape, torch.float32, torch.device("cpu"))
    past = torch.randn(2, 1, 2, 700, 16, generator=torch.Generator().manual_seed(0))
    for layer in range(2):
        cache.write(layer, 0, past[0], past[1])
    cache.length = 700
    return cache


@pytest.mark.parametrize("dtype", ROUNDING)
def test_neither_threads_nor_companions_change_a_bit(dtype: str | None) -> None:
    """So guesses of speculative decoding and threads=free change none either."""
    lowered = for_decoding(network(dim=64, num_heads=4, num_kv_heads=2), dtype)
    before, expected = torch.get_num_threads(), torch.randn(1, 12, 64)
    x, found, cache = expected, [], long_past(dtype)
    for layer, block in enumerate(lowered.blocks):
        expected = block.step(expected, None, cache, layer)
    step = NativeStep(lowered)
    try:
        for threads, sizes in ((1, (12,)), (3, (12,)), (2, (1,) * 12), (2, (7, 5))):
            torch.set_num_threads(threads)
            cache, parts = long_past(dtype), []
            for part in x.split(sizes, dim=1):
                parts.append(step(part, None, cache))
                cache.length += part.shape[1]
            found.append(torch.cat(parts, 1))
    finally:
        torch.set_num_threads(before)
    assert (found[0] - expected).abs().max() < ROUNDING[dtype] * expected.abs().max()
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("dtype", ROUNDING)
def test_weights_are_laid_out_once_while_they_stay(dtype: str | None) -> None:
    """A decoder per decision shares them; an edit, of whatever kind, has them laid out anew."""
    model = network()
    first, again = (open_decoder(model, kernel="native", dtype=dtype) for _ in range(2))
    assert again.native.laid_out is first.native.laid_out
    assert again.native is not first.native  # each has its own cache
    weight = model.blocks[1].up.weight
    for edit in (lambda: weight.data[0, 0].neg_(), lambda: nn.init.normal_(weight)):
        before = logits(model, dtype, "native", 1)
        edit()
        after, expected = (logits(model, dtype, kernel, 1) for kernel in ("native", "torch"))
        assert not torch.equal(before, after)
        assert (after - expected).abs().max() < ROUNDING[dtype] * expected.abs().max()


def test_weights_are_not_kept_beyond_their_network() -> None:
    model = network()
    layout = weakref.ref(open_decoder(model, kernel="native").native.laid_out)
    assert layout() is not None
    del model
    gc.collect()
    assert layout() is None


def test_many_positions_are_left_to_torch() -> None:
    model = network()
    decoder = open_decoder(model, kernel="native")
    decoder.start(make_clip(2)[0], None)
    takes, decoder.cache.length = decoder.native.takes, 0
    assert takes(torch.zeros(2, MOST_ROWS // 2, 24), decoder.cache)
    assert not takes(torch.zeros(2, MOST_ROWS // 2 + 1, 24), decoder.cache)


def test_what_does_not_fit_into_the_cache_is_left_to_torch() -> None:
    decoder = open_decoder(network(), kernel="native")
    decoder.start(make_clip(2)[0], None)
    takes, cache = decoder.native.takes, decoder.cache
    assert not takes(torch.zeros(1, 1, 24), cache)  # another number of rows
    cache.length = cache.keys.shape[3]
    assert not takes(torch.zeros(2, 1, 24), cache)


def test_a_model_in_half_precision_is_left_to_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert open_decoder(network().bfloat16(), kernel="native").native is None
    assert "a model in torch.bfloat16" in capsys.readouterr().out


def test_a_library_that_others_may_have_written_is_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "_loaded", build._loaded.__wrapped__)
    monkeypatch.setenv("DASHCAST_CACHE", str(tmp_path))
    (tmp_path / "native").mkdir()
    (tmp_path / "native").chmod(0o777)
    assert open_decoder(network(), kernel="native").native is None
    assert "others may write it; set DASHCAST_CACHE" in capsys.readouterr().out


def test_portable_decoding_refuses_another_kernel() -> None:
    with pytest.raises(BadInput, match=r"portable has its own arithmetic; leave decoding\.kernel"):
        open_decoder(network(), method="portable", kernel="native")


def test_a_broken_compiler_leaves_the_work_to_torch_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "_loaded", build._loaded.__wrapped__)
    monkeypatch.setenv("DASHCAST_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'no such target' >&2\necho more >&2\nexit 1\n")
    broken.chmod(0o755)
    for compiler, said in (("missing", "there is no C compiler"), (str(broken), "no such target")):
        monkeypatch.setenv("CC", compiler)
        decoder = open_decoder(network(), kernel="native")
        assert decoder.native is None
        out = capsys.readouterr().out
        assert said in out
        assert out.count("\n") == 1
    assert list((tmp_path / "cache" / "native").iterdir()) == []
