"""Fixed shapes, as a CUDA graph runs them: the tokens are those of eager decoding."""

import pytest
import torch
from tiny_gpt import LAYOUTS, POSITIONS, make_clip, make_model

from worldmodel.decoding import Sampling
from worldmodel.decoding.raster import Decoder
from worldmodel.dynamics import attention
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.dynamics.gpt.one_position import OnePosition, Unrecordable


def futures(model: GPT, fixed: bool, compiled: bool = False, horizon: int = 7) -> torch.Tensor:
    """Frames of two futures per clip, beyond the context, from a cache full of NaN."""
    tokens, actions = make_clip(2)
    decoder = Decoder(model, Sampling(top_k=5), slide_steps=2)
    decoder.fixed_shapes, decoder.compiled = fixed, compiled
    make = decoder._empty_cache

    def unwritten(rows: int):
        cache = make(rows)
        cache.keys.fill_(torch.nan), cache.values.fill_(torch.nan)
        return cache

    decoder._empty_cache = unwritten
    decoder.start(tokens, actions, num_futures=2)
    given = actions.repeat_interleave(2, dim=0)
    return torch.stack([decoder.next_frame(given[:, 1 + step]) for step in range(horizon)], 1)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fixed_shapes_draw_the_tokens_of_eager_decoding(layout: str, positions: str) -> None:
    model = make_model(layout, positions)
    assert torch.equal(futures(model, fixed=True), futures(model, fixed=False))


def test_a_slide_keeps_what_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[bool] = []
    hold = OnePosition._hold

    def watched(self: OnePosition, inputs: list) -> bool:
        fits.append(hold(self, inputs))
        return fits[-1]

    monkeypatch.setattr(OnePosition, "_hold", watched)
    futures(make_model(), fixed=True)
    assert fits.count(False) == 1
    assert len(fits) > 40


def test_what_cannot_be_recorded_runs_as_before_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    expected = futures(model, fixed=False)

    def refuse(self: OnePosition, *inputs: object) -> None:
        raise Unrecordable("operation not permitted when stream is capturing")

    monkeypatch.setattr(OnePosition, "__call__", refuse)
    assert torch.equal(futures(model, fixed=True), expected)
    said = capsys.readouterr().out
    assert said.count("without a CUDA graph, so slower (operation not permitted") == 1


def test_the_product_of_one_row_is_the_same_as_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SUMS_OF_ONE_ROW", True)
    layer = torch.nn.Linear(24, 7).bfloat16()
    x, several = torch.randn(1, 1, 24), torch.randn(1, 2, 24)
    seen: list[bool] = []
    layer.register_forward_hook(lambda *_: seen.append(True))
    expected = attention.linear(layer, x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    attention.linear(layer, several)
    assert len(seen) == 2
    with torch.no_grad():
        torch.testing.assert_close(attention.linear(layer, x), expected, atol=0.01, rtol=0.01)
    assert len(seen) == 2
