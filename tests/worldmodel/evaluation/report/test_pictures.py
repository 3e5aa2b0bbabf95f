"""Pictures of clips: a comic strip, a GIF, and cross entropy as heat."""

import resource

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_gpt import make_clip, make_model

from worldmodel.evaluation.report.heat import UNKNOWN, heat_frames, nats_of_cells
from worldmodel.evaluation.report.strips import write_comic, write_gif
from worldmodel.windows import TokenClip


def grey(*levels: int) -> torch.Tensor:
    """One clip of 128x128 frames of one level each."""
    values = torch.tensor(levels, dtype=torch.uint8)
    return values[None, :, None, None, None].expand(1, -1, 3, 128, 128)


def test_prompt_generated_and_ground_truth_lie_where_they_must(tmp_path):
    generated, real = grey(10, 20, 110, 120), grey(11, 21, 211, 221)
    strip, film = write_comic(tmp_path, "comic", generated, real, 2, 10.0)
    pixels = np.asarray(Image.open(strip).convert("L"))
    rows = [[int(pixels[y, x]) for x in range(64, 132 * 4, 132)] for y in (80, 80 + 150)]
    assert rows == [[10, 20, 110, 120], [11, 21, 211, 221]]
    with Image.open(film) as moving:
        levels = []
        for index in range(moving.n_frames):
            moving.seek(index)
            levels.append(int(np.asarray(moving.convert("L"))[80, 64]))
    assert levels == [11, 21, 110, 120, 211, 221]


def test_heat_is_the_cross_entropy_of_every_cell_also_beyond_the_context():
    network, (tokens, actions) = make_model(context=4), make_clip(9)
    nats = nats_of_cells(network, TokenClip(tokens, actions))
    assert torch.isnan(nats[:, 0]).all()
    # Windows of four frames; each is for the frames that the one before has not reached.
    for window, frames in ((0, (1, 2, 3)), (2, (4, 5)), (4, (6, 7)), (5, (8,))):
        seen = slice(window, window + 4)
        with torch.no_grad():
            scores = network.score(tokens[:, seen], actions[:, seen])
        for frame in frames:
            own = scores.nats[:, frame - window].reshape(2, 2, 3)
            assert torch.allclose(nats[:, frame], own, atol=1e-5)


def test_heat_is_dark_at_zero_bright_at_the_top_and_grey_where_unknown():
    values = torch.tensor([[[[0.0, 5.0, 10.0, 20.0, torch.nan]]]])
    pixels = heat_frames(values, 10.0)[0, 0, 0].astype(int)
    brightness = pixels.sum(-1)
    assert brightness[0] < 10 < brightness[1] < brightness[2] == brightness[3]
    assert pixels[4].tolist() == [UNKNOWN] * 3


def test_a_gif_that_does_not_fit_leaves_the_old_one(tmp_path):
    file, noise = tmp_path / "a.gif", np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3))
    pictures = list(noise.astype(np.uint8))
    write_gif(file, pictures[:1], 10)
    before, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_gif(file, pictures, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
