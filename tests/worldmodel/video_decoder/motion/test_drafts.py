"""What a decoder is shown of neighbours, moved along the motion; a causal one of none after it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from training.errors import BadInput
from worldmodel.video_decoder.motion.drafts import FirstGuess, drafted
from worldmodel.video_decoder.networks.config import DiffusionDecoderConfig, OnePassDecoderConfig
from worldmodel.video_decoder.tasks import DecodingTask

INNER = (..., slice(None), slice(8, 24))


def panned(steps: int = 7, shift: int = 2) -> Tensor:
    wide = torch.rand(3, 32, 32 + steps * shift, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.stack([wide[:, :, i * shift : i * shift + 32] for i in range(steps)])[None]


def guess(frames: Tensor, given: bool = False, **settings: Any) -> FirstGuess:
    """The draft of a window whose tokenizer loses nothing; `given`: every second frame is."""
    steps = frames.shape[1]
    even = torch.arange(steps)[None] % 2 == 0
    known = (even | (not given))[:, :, None, None].expand(-1, -1, 4, 4)
    task = DecodingTask(
        torch.zeros(1, steps, 4, 4).long(),
        known,
        even & given,
        torch.ones(1, dtype=torch.bool),
        torch.zeros(1).long(),
        may_interpolate=given,
    )
    kind = OnePassDecoderConfig if "causal" in settings else DiffusionDecoderConfig
    made = drafted(kind(draft=True, **settings), task, frames, lambda tokens: frames)
    assert made is not None
    return made


def test_neighbours_are_moved_onto_each_frame() -> None:
    frames = panned()
    before, after = guess(frames, reach=3).neighbours
    assert torch.equal(before[:, 1:][INNER], frames[:, 1:][INNER])
    assert torch.equal(after[:, :-1][INNER], frames[:, :-1][INNER])
    assert torch.equal(before[:, 0], frames[:, 0])
    assert torch.equal(after[:, -1], frames[:, -1])
    assert not guess(frames).neighbours


def test_two_given_frames_meet_where_their_motion_does() -> None:
    frames = panned()
    blended, met = guess(frames, given=True).frames, guess(frames, given=True, reach=3)
    between = frames[:, 1::2][INNER]
    assert torch.equal(met.frames[:, 1::2][INNER], between)
    assert not torch.allclose(blended[:, 1::2][INNER], between, atol=0.1)
    for neighbour in met.neighbours:
        assert torch.equal(neighbour[:, 1::2][INNER], between)


def test_a_causal_decoder_is_shown_no_frame_after_it() -> None:
    frames = panned()
    changed = frames.clone()
    changed[:, 4:] = -changed[:, 4:]
    (first,), (second,) = (guess(f, causal=True, reach=2).neighbours for f in (frames, changed))
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4:], second[:, 4:])


def test_a_frame_that_is_decoded_alone_is_shown_no_neighbours() -> None:
    draft = guess(panned(), reach=2)
    for is_video in (None, torch.tensor([False])):
        assert all(torch.equal(plane, draft.frames) for plane in draft.planes(is_video))
    assert not torch.equal(draft.planes(torch.tensor([True]))[1], draft.frames)


def test_a_search_in_halves_reaches_farther() -> None:
    frames = panned(shift=4)
    for given in (False, True):
        near, far = (guess(frames, given, reach=2, halvings=n).neighbours[0] for n in (0, 1))
        assert torch.equal(far[:, 1::2][INNER], frames[:, 1::2][INNER])
        assert not torch.equal(near[:, 1::2][INNER], frames[:, 1::2][INNER])


def test_motion_without_drafts_is_refused() -> None:
    with pytest.raises(BadInput, match=r"halvings=1: of a search .* reach=0 searches none"):
        OnePassDecoderConfig(draft=True, halvings=1)
    with pytest.raises(BadInput, match=r"reach=2: moves drafts, and draft=false has none"):
        OnePassDecoderConfig(reach=2)
