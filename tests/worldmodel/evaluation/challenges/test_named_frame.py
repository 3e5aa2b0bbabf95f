"""PSNR of one future frame, by hand."""

import numpy as np
import pytest

from training.errors import BadInput
from worldmodel.evaluation.challenges.named_frame import named_frame_psnr


def test_it_is_that_of_the_frame_alone():
    rng = np.random.default_rng(0)
    pred, real = rng.integers(0, 256, (2, 3, 5, 8, 8, 3), dtype=np.uint8)
    found = named_frame_psnr(pred, real, frame=4, size=None)
    for index in range(3):
        error = np.square(real[index, 3].astype(float) - pred[index, 3]).mean()
        assert found[index] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-4)
    pred[:, 3] = real[:, 3]
    assert (named_frame_psnr(pred, real, frame=4, size=None) == 100).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 77, 8, 8, 3), "frames of 8x8 pixels; the challenge has 512x512"),
        ((1, 76, 512, 512, 3), "frame=77: the clips have 76 frames"),
        ((77, 512, 512, 3), "give two alike"),
    ],
)
def test_other_clips_are_refused(shape, message):
    clips = np.broadcast_to(np.uint8(0), shape)
    with pytest.raises(BadInput, match=message):
        named_frame_psnr(clips, clips)
