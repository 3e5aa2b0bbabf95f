"""Frames reach a tokenizer cut, scaled and in the range that it was trained on."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from drives.clips.preprocessing import COMMA_CAMERA, Preprocessing
from drives.tokens.store import TokenSpec, TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.errors import BadInput

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")


def ramp(height: int, width: int) -> np.ndarray:
    """A frame whose red is its row and whose green its column, both divided by 8."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows // 8, columns // 8, 0 * rows], -1).astype(np.uint8)[None]


def test_the_comma_crop_cuts_where_upstream_does():
    """Row H//2 - 319//2 - 59//2 = 416 and column W//2 - 638//2 = 645 of 1208 x 1928."""
    frames = ramp(1208, 1928)
    assert np.array_equal(COMMA_CAMERA.cut(frames), frames[:, 416 : 416 + 319, 645 : 645 + 638])
    fitted = COMMA_CAMERA.fit(frames, (128, 256))[0].float()
    assert fitted.shape == (3, 128, 256)
    # cv2.resize samples at (i + 0.5) * scale - 0.5 between its two neighbours.
    place = 416 + (np.arange(128) + 0.5) * 319 / 128 - 0.5
    low = np.floor(place).astype(int)
    expected = (low // 8) * (low + 1 - place) + ((low + 1) // 8) * (place - low)
    assert np.abs(fitted[0, :, 7].numpy() - expected).max() <= 0.51  # rounded to uint8
    assert COMMA_CAMERA.to_network(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 127.5, 255]


def test_frames_of_the_tokenizers_own_size_are_taken_as_they_are():
    frames = ramp(128, 256)
    fitted = COMMA_CAMERA.fit(frames, (128, 256))
    assert np.array_equal(fitted.permute(0, 2, 3, 1).numpy(), frames)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 300, 600, 3), r"\(300, 600\).*too small.*\(319, 638\)"),
        ((1, 340, 700, 3), "too small"),  # large enough, but not for a window above the centre
        ((0, 1208, 1928, 3), "at least one"),
        ((1, 1208, 1928, 1), "RGB"),
        ((1, 1208, 1928, 4), "RGB"),
    ],
)
def test_unusable_frames_are_named(shape, words):
    with pytest.raises(BadInput, match=words):
        COMMA_CAMERA.fit(np.zeros(shape, np.uint8), (128, 256))


def test_each_setting_does_something():
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    plain = Preprocessing()
    for change in ({"window": (32, 32)}, {"antialias": False}):
        other = replace(plain, **change)
        assert not torch.equal(other.fit(frames, (16, 16)), plain.fit(frames, (16, 16)))
    cut = replace(plain, window=(32, 32))
    moved = replace(cut, offset=(4, -4))
    assert np.array_equal(cut.cut(frames), frames[:, 16:48, 16:48])
    assert np.array_equal(moved.cut(frames), frames[:, 20:52, 12:44])
    pixels = torch.full((1, 3, 1, 1), 1.0)
    assert plain.to_network(pixels) is pixels
    imagenet = replace(plain, value_range=(0.0, 1.0), mean=(0.5, 0.4, 0.3), std=(0.5, 0.3, 0.1))
    torch.testing.assert_close(imagenet.to_network(pixels).flatten(), torch.tensor([1.0, 2.0, 7.0]))


def test_a_spec_keeps_its_preprocessing_and_old_ones_still_open(tmp_path):
    spec = replace(SPEC, preprocessing=COMMA_CAMERA)
    assert TokenSpec.from_dict(json.loads(json.dumps(asdict(spec)))) == spec
    old = json.loads(json.dumps(asdict(SPEC)))
    del old["preprocessing"]
    assert TokenSpec.from_dict(old) == SPEC
    with pytest.raises(TypeError):
        TokenSpec.from_dict({**old, "preprocessing": {"blur": 1}})


def test_an_old_store_goes_on_and_another_preprocessing_is_refused(tmp_path):
    tokens, actions = np.zeros((4, 2, 3), int), np.zeros((4, 0), np.float32)
    TokenStoreWriter(tmp_path, SPEC, ()).write("a", "train", tokens, actions)
    file = tmp_path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["spec"]["preprocessing"], manifest["sha256"]
    file.write_text(json.dumps({**manifest, "schema_version": 1}))
    TokenStoreWriter(tmp_path, SPEC, ()).write("b", "train", tokens, actions)
    assert len(TokenStore(tmp_path).drives("train")) == 2
    with pytest.raises(BadInput, match="another spec"):
        TokenStoreWriter(tmp_path, replace(SPEC, preprocessing=COMMA_CAMERA), ())
