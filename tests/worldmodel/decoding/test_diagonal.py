"""Diagonal decoding: exact at the grid's width, and what it approximates before."""

import pytest
import torch
from tiny_gpt import LAYOUTS, make_clip, make_model

from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.diagonal import DiagonalDecoder
from worldmodel.decoding.raster import Decoder
from worldmodel.decoding.rollout import rollout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_at_the_grid_s_width_it_is_raster(layout: str) -> None:
    model, sampling = make_model(layout), Sampling(seed=2)
    expected = rollout(model, *make_clip(3), 4, sampling, 2)
    exact, fast = (
        rollout(model, *make_clip(3), 4, sampling, 2, method="diagonal", lag=lag) for lag in (3, 1)
    )
    assert torch.equal(exact, expected)
    assert not torch.equal(fast, expected)


def test_passes_are_diagonals() -> None:
    model = make_model()
    fast, slow = ([p.tolist() for p in DiagonalDecoder(model, lag=lag).passes] for lag in (1, 2))
    assert fast == [[0], [1, 3], [2, 4], [5]]
    assert slow == [[0], [1], [2, 3], [4], [5]]


def test_a_cell_is_scored_without_its_own_diagonal_and_later_frames_exactly() -> None:
    model, (tokens, actions) = make_model(), make_clip(4)

    def score(real: torch.Tensor) -> list[torch.Tensor]:
        decoder = DiagonalDecoder(model, lag=1)
        decoder.start(real[:, :2], actions)
        return [decoder.score_next(real[:, t], actions[:, t - 1]) for t in (2, 3)]

    exact = model.score(tokens, actions).nats
    first, second = score(tokens)
    torch.testing.assert_close(first[:, 0], exact[:, 2, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(second[:, 0], exact[:, 3, 0], atol=1e-4, rtol=1e-4)
    assert (first[:, 1:] - exact[:, 2, 1:]).abs().max() > 0.01
    changed = tokens.clone()
    changed[:, 2, 0, 1] = (changed[:, 2, 0, 1] + 1) % 11  # cell 1; cell 3 is drawn beside it
    other, _ = score(changed)
    assert torch.equal(other[:, [0, 3]], first[:, [0, 3]])
    assert not torch.equal(other[:, 4], first[:, 4])


def test_a_row_begins_after_the_previous_frame_s_cell() -> None:
    """Cell 3 is drawn in pass 1, after a stand-in for cell 2: by definition, without a cache."""
    model, (tokens, actions) = make_model(look_back=0), make_clip(3)
    decoder = DiagonalDecoder(model, lag=1)
    decoder.start(tokens[:, :2], actions)
    nats = decoder.score_next(tokens[:, 2], actions[:, 1])
    raster = Decoder(model)
    raster.start(tokens[:, :2], actions)
    raster.begin(actions[:, 1])
    raster.feed(raster.prefix)
    fed = torch.stack([tokens[:, 2, 0, 0], tokens[:, 1, 0, 2]], dim=1)
    cells = torch.tensor([0, 2])
    logits = raster.feed(raster.embed_cells(fed, cells), cells)[:, 1]
    expected = torch.nn.functional.cross_entropy(logits, tokens[:, 2, 1, 0], reduction="none")
    torch.testing.assert_close(nats[:, 3], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lag", [0, 4])
def test_refuses_a_lag_out_of_range(lag: int) -> None:
    with pytest.raises(BadInput, match=rf"lag={lag}: give a whole number from 1 to 3"):
        DiagonalDecoder(make_model(), lag=lag)
