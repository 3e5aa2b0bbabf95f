"""Which windows a drive is decoded in."""

import pytest

from training.errors import BadInput
from worldmodel.video_decoder.windows import decoding_order, upsampling_order


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("num_frames", [7, 8, 12, 17, 40])
def test_every_frame_is_decoded_once(num_frames: int, backwards: bool) -> None:
    done: set[int] = set()
    for place in decoding_order(num_frames, 7, 2, backwards):
        frames = range(place.start, place.start + 7)
        given = set(frames[slice(*place.given)])
        assert given == done & set(frames)  # what is given was decoded before, and nothing twice
        assert not done or len(given) >= 2
        done |= set(frames)
    assert done == set(range(num_frames))


def test_a_drive_is_decoded_from_its_end() -> None:
    starts = [place.start for place in decoding_order(17, 7, 2, backwards=True)]
    assert starts == [10, 5, 0]
    assert [p.start for p in decoding_order(17, 7, 2, backwards=False)] == [0, 5, 10]


@pytest.mark.parametrize("num_frames", [4, 5, 7, 20])
def test_every_frame_between_two_is_made(num_frames: int) -> None:
    made: set[int] = set()
    for place in upsampling_order(num_frames, 7):
        assert place.start % 2 == 0  # it begins with a given frame
        made |= {frame for frame in range(place.start, place.start + 7) if frame % 2}
    assert made == set(range(1, 2 * num_frames - 1, 2))


@pytest.mark.parametrize("backwards", [False, True])
def test_windows_fade_into_each_other(backwards: bool) -> None:
    """From the one that was decoded before, at its side, to the new one."""
    place = decoding_order(9, 7, 5, backwards)[1]
    kept = place.kept(7, fades=True)
    assert kept.tolist() == pytest.approx(
        [0, 0, *(n / 6 for n in range(1, 6))]
        if backwards
        else [*(n / 6 for n in range(5, 0, -1)), 0, 0]
    )
    whole = [0, 0, 1, 1, 1, 1, 1] if backwards else [1, 1, 1, 1, 1, 0, 0]
    assert place.kept(7, fades=False).tolist() == whole


def test_short_clips_and_overlaps_without_new_frames_are_refused() -> None:
    with pytest.raises(BadInput, match="6 frames are shorter than the video decoder's window of 7"):
        decoding_order(6, 7, 2, True)
    with pytest.raises(BadInput, match="overlap=7: give 1 to 6"):
        decoding_order(20, 7, 7, True)
    with pytest.raises(BadInput, match="3 frames give 5"):
        upsampling_order(3, 7)
