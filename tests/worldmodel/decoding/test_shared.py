"""Futures of one prompt read it from one place; what they read is what copies of it hold."""

import os
import shutil

import pytest
import torch
from tiny_gpt import make_clip, make_model

from worldmodel.decoding import Sampling
from worldmodel.decoding.cached import CachedDecoder
from worldmodel.decoding.native.build import SPLIT
from worldmodel.decoding.native.step import NativeStep
from worldmodel.decoding.quantized import TILE, Int8Cache
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.decoding.weights import for_decoding
from worldmodel.dynamics.cache import KVCache
from worldmodel.dynamics.shared_cache import SharedCache

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler"
)
FUTURES, HEADS, CHANNELS = 3, 2, 12


def filled(eight: bool, length: int, room: int = 4 * TILE) -> KVCache:
    """A prompt of two examples, in two layers."""
    torch.manual_seed(0)
    shape = (2, 2, HEADS, room, CHANNELS)
    cache = Int8Cache(*shape) if eight else KVCache(*shape, torch.float32, torch.device("cpu"))
    past = torch.randn(2, 2, 2, HEADS, length, CHANNELS)
    for layer in range(2):
        cache.write(layer, 0, *past[layer])
    cache.length = length
    return cache


@pytest.mark.parametrize("eight", [False, True])
def test_attention_is_that_of_copies_also_after_positions_left(eight: bool) -> None:
    prompt = filled(eight, 250)
    copies = prompt.expand(FUTURES)
    shared = SharedCache(prompt, FUTURES, TILE if eight else 1)
    assert shared.prompt.length == (2 * TILE if eight else 250)
    for gone in (0, 0, 100, 7, 120, 40):  # the fifth takes the last of the prompt
        for cache in (copies, shared):
            cache.forget(gone)
        assert shared.length == copies.length
        for new in (1, 5):
            keys, values = torch.randn(2, 2 * FUTURES, HEADS, new, CHANNELS)
            query = torch.randn(2 * FUTURES, 2 * HEADS, new, CHANNELS)
            for layer in range(2):
                found, expected = (
                    c.step(layer, query, keys, values, 0.3) for c in (shared, copies)
                )
                torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
            for cache in (copies, shared):
                cache.length += new
    assert shared.prompt.length == 0


def test_memory_of_futures_is_what_is_their_own() -> None:
    prompt = filled(eight=False, length=250)
    alone, copies = prompt.num_bytes, prompt.expand(16)
    shared = SharedCache(prompt, 16)
    assert shared.num_bytes == alone
    assert copies.num_bytes == 16 * alone
    assert 16 * shared.own.capacity * alone == (4 * TILE - 250) * copies.num_bytes


@pytest.mark.parametrize("kernel", ["torch", "native"])
@pytest.mark.parametrize("options", [{"window": "roll"}, {"dtype": "int8"}, {"slide_steps": 2}])
def test_futures_are_those_of_copies(
    kernel: str, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the context; from a prompt that fills it, too."""
    model = make_model("continuous", "rope")
    for steps in (2, model.config.context_steps):
        tokens, actions = make_clip(steps)
        given = model, tokens, actions, 5, Sampling(seed=3), FUTURES
        shared = rollout(*given, kernel=kernel, **options)
        with monkeypatch.context() as patch:
            patch.setattr(CachedDecoder, "_cache_for", lambda self, n: self.cache.expand(n))
            assert torch.equal(shared, rollout(*given, kernel=kernel, **options))


@needs_compiler
@pytest.mark.parametrize("dtype", [None, "int8"])
def test_the_c_function_gives_the_bits_of_copies(dtype: str | None) -> None:
    step = NativeStep(for_decoding(make_model("none"), dtype))
    prompt = filled(dtype == "int8", 2 * SPLIT + 40, room=3 * SPLIT)
    copies = prompt.expand(FUTURES)
    shared = SharedCache(prompt, FUTURES, SPLIT)
    assert (shared.prompt.length, shared.own.length) == (2 * SPLIT, 40)
    for gone in (0, 100, SPLIT):
        for cache in (copies, shared):
            cache.forget(gone)
        for new in (1, 3):
            x = torch.randn(2 * FUTURES, new, 24)
            assert step.takes(x, shared)
            assert torch.equal(step(x, None, shared), step(x, None, copies))
            shared.length, copies.length = shared.length + new, copies.length + new
    assert shared.prompt.length == 0


def test_a_prompt_that_fills_the_context_is_read_twice_for_one_future_not_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model("continuous")
    tokens, actions = make_clip(model.config.context_steps)
    decoder = open_decoder(model, slide_steps=2)
    read, rows = decoder.model.embed_clip, []
    monkeypatch.setattr(
        decoder.model, "embed_clip", lambda *clip: rows.append(len(clip[0])) or read(*clip)
    )
    decoder.start(tokens, actions, FUTURES)
    for step in range(3):
        decoder.next_frame(actions[:, 3 + step].repeat_interleave(FUTURES, 0))
    assert rows == [2, 2, 2 * FUTURES]
