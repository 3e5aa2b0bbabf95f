"""Motion, warp error and the table against videos whose motion is known."""

import pytest
import torch

from training.errors import BadInput
from worldmodel.video_decoder.judge import blended, repeated
from worldmodel.video_decoder.motion.matching import (
    alike,
    block_mean,
    met_between,
    motion,
    moved_onto,
    warp_error,
)
from worldmodel.video_decoder.windows import upsampling_order


def panned(steps: int = 4, shift: int = 2, width: int = 32, grain: int = 1) -> torch.Tensor:
    """A random picture that moves to the left; `grain`: pixels from one drawn point to the next."""
    size, generator = (32, width + steps * shift), torch.Generator().manual_seed(0)
    drawn = torch.rand(1, 3, *(n // grain for n in size), generator=generator) * 2 - 1
    wide = torch.nn.functional.interpolate(drawn, size, mode="bilinear")[0]
    return torch.stack([wide[:, :, i * shift : i * shift + width] for i in range(steps)])


def test_motion_of_a_pan_is_found_and_the_video_follows_it() -> None:
    clip = panned()
    flow, error = motion(clip)
    inner = (slice(None), slice(None), slice(None), slice(0, 26))
    assert torch.equal(flow[inner][:, 1], torch.full_like(flow[inner][:, 1], 2))
    assert not flow[inner][:, 0].any()
    assert float(warp_error(clip, flow, error <= 4.0)) < 1.0


def test_a_video_that_flickers_has_a_warp_error_of_its_flicker() -> None:
    clip = panned() * 0.5
    flow, error = motion(clip)
    lit = clip + 0.1 * torch.tensor([0.0, 1, 0, 1]).view(-1, 1, 1, 1)
    assert float(warp_error(lit, flow, error <= 4.0)) == pytest.approx(12.75, abs=1.0)


def test_a_frame_is_moved_onto_the_next_one_and_two_meet_in_the_middle() -> None:
    clip = panned(steps=3)
    inner = (slice(None), slice(None), slice(None), slice(6, 26))
    onto = moved_onto(clip[:1], clip[1:2], reach=3)
    assert torch.equal(onto[inner], clip[1:2][inner])
    assert not torch.equal(moved_onto(clip[:1], clip[1:2], reach=1)[inner], clip[1:2][inner])
    for met in met_between(clip[:1], clip[2:], reach=2):
        assert torch.equal(met[inner], clip[1:2][inner])


@pytest.mark.parametrize(("shift", "halvings"), [(5, 1), (8, 2)])
def test_a_search_in_halves_finds_moves_of_several_times_the_reach(
    shift: int, halvings: int
) -> None:
    clip = panned(steps=3, shift=shift, width=128, grain=4)

    def found(made: torch.Tensor) -> float:
        return float((made == clip[1:2])[..., 40:88].float().mean())

    assert found(moved_onto(clip[:1], clip[1:2], 2, halvings)) > 0.9
    assert found(moved_onto(clip[:1], clip[1:2], 2)) < 0.5
    for met in met_between(clip[:1], clip[2:], 2, halvings):
        assert found(met) > 0.9


def test_a_move_that_none_beside_it_shares_is_replaced() -> None:
    flow = torch.full((1, 2, 6, 8), 3)
    flow[..., 4:] = -2
    torn = flow.clone()
    torn[:, :, 2, 1], torn[:, :, 0, 6] = 9, -9
    assert torch.equal(alike(torn), flow)


@pytest.mark.parametrize("halvings", [0, 2])
def test_what_stands_still_is_not_moved(halvings: int) -> None:
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(moved_onto(noise, noise, 3, halvings), noise)


def test_means_of_blocks_are_those_of_avg_pool() -> None:
    values = torch.rand(2, 9, 12, generator=torch.Generator().manual_seed(0))
    pooled = torch.nn.functional.avg_pool2d(values, 7, 1, 3, count_include_pad=False)
    assert torch.allclose(block_mean(values), pooled, atol=1e-6)


def test_floors_of_upsampling() -> None:
    frames = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(-1, -1, 3, 2, 2)
    assert repeated(frames)[0, :, 0, 0, 0].tolist() == [0, 0, 1, 1, 2]
    assert blended(frames)[0, :, 0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2]
    with pytest.raises(BadInput):
        upsampling_order(1, 7)
