"""Drives to tokens and back: complete, resumable, checked; the shipped tokenizer holds its word."""

import numpy as np
import pytest
import torch

from tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from tokenizer.carracing import ACTION_NAMES, CarRacingConfig, make_drive
from tokenizer.data import resize, to_pixels, to_uint8
from tokenizer.decode import check_pair, decode_frames
from tokenizer.drives import open_drives, write_drive
from tokenizer.encode import EncodeConfig, average_rows, encode_drives
from tokenizer.evaluation import evaluate_tokenizer
from tokenizer.load import PRETRAINED, load_tokenizer
from tokenizer.lpips_weights import load_lpips
from training.errors import BadInput

# Tracks that neither the training nor the figures in the manifest have seen.
FRESH = CarRacingConfig(seed=77, num_train=2, num_val=0, num_test=0, seconds=6.0)


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    root = tmp_path_factory.mktemp("drives")
    for index in range(2):
        frames, actions, meta = make_drive(FRESH, index)
        write_drive(
            root / f"fresh-{index}", frames, actions, ACTION_NAMES, {**meta, "split": "train"}
        )
    return open_drives(root)


def test_the_shipped_tokenizer_holds_to_its_figures_on_fresh_drives(drives):
    tokenizer = load_tokenizer("carracing")
    promised = tokenizer.manifest["figures"]
    reached = evaluate_tokenizer(tokenizer, drives, load_lpips("alex"), "cpu")
    assert reached["psnr"] > promised["psnr"] - 1.5
    assert reached["ssim"] > promised["ssim"] - 0.03
    assert reached["lpips"] < promised["lpips"] + 0.005
    assert sum(f.stat().st_size for f in (PRETRAINED / "carracing").iterdir()) < 4e6


def test_a_store_holds_every_step_and_is_not_encoded_twice(drives, tmp_path, monkeypatch):
    store = encode_drives(drives, "carracing", tmp_path / "store", ACTION_NAMES)
    tokenizer = load_tokenizer("carracing")
    for drive, tokens in zip(drives, store.drives("train"), strict=True):
        pixels = to_pixels(resize(np.stack(list(drive.frames())), (64, 64)))
        assert torch.equal(tokenizer.encode(pixels), torch.from_numpy(tokens.tokens.astype(int)))
        np.testing.assert_array_equal(tokens.actions, drive.actions)
    monkeypatch.setattr("tokenizer.encode.encode_drive", None)  # must not be called again
    again = encode_drives(drives, "carracing", tmp_path / "store", ACTION_NAMES)
    assert again.hash == store.hash


def test_an_interrupted_encoding_goes_on_where_it_stopped(drives, tmp_path, monkeypatch):
    import tokenizer.encode as encode

    real, seen = encode.encode_drive, []

    def dies_on_the_second(drive, *args):
        if drive.id.endswith("1"):
            raise KeyboardInterrupt
        seen.append(drive.id)
        return real(drive, *args)

    monkeypatch.setattr(encode, "encode_drive", dies_on_the_second)
    with pytest.raises(KeyboardInterrupt):
        encode_drives(drives, "carracing", tmp_path / "store", ACTION_NAMES)
    monkeypatch.setattr(encode, "encode_drive", lambda d, *a: seen.append(d.id) or real(d, *a))
    store = encode_drives(drives, "carracing", tmp_path / "store", ACTION_NAMES)
    assert seen == ["fresh-0", "fresh-1"]
    assert len(store.drives("train")) == 2


def test_worker_processes_give_the_same_tokens(drives, tmp_path):
    many = [*drives, *drives]  # four drives are enough for the workers to start
    import tokenizer.encode as encode

    config = EncodeConfig(num_workers=2)
    opened = load_tokenizer("carracing")
    together = list(encode._encode_all(many, "carracing", opened, config))
    for drive, tokens in zip(many, together, strict=True):
        assert np.array_equal(tokens, encode.encode_drive(drive, opened, config))


def test_every_second_frame_keeps_the_mean_of_the_actions_between(drives, tmp_path):
    store = encode_drives(drives, "carracing", tmp_path / "s", ACTION_NAMES, EncodeConfig(every=2))
    drive, tokens = drives[0], store.drives("train")[0]
    assert len(tokens.tokens) == -(-len(drive.actions) // 2)
    assert store.spec.fps == drive.fps / 2
    np.testing.assert_allclose(tokens.actions[3], drive.actions[6:8].mean(0), rtol=1e-5)
    np.testing.assert_allclose(average_rows(np.arange(5.0)[:, None], 2)[:, 0], [0.5, 2.5, 4.0])


def test_another_tokenizers_store_is_refused(drives, tmp_path):
    store = encode_drives(drives, "carracing", tmp_path / "store", ACTION_NAMES)
    other = load_tokenizer("carracing")
    check_pair(store, other)
    other.hash = "0" * 64
    with pytest.raises(BadInput, match="not by this one"):
        check_pair(store, other)


def test_decoded_frames_look_like_the_drive(drives):
    tokenizer = load_tokenizer("carracing")
    frames = np.stack(list(drives[0].frames(0, 10)))
    tokens = tokenizer.encode(to_pixels(resize(frames, (64, 64)))).numpy()
    decoded = np.stack(list(decode_frames(tokens, tokenizer)))
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 8


def test_wrong_frame_sizes_are_refused():
    tokenizer = load_tokenizer("carracing")
    with pytest.raises(BadInput, match=r"\(64, 64\)"):
        tokenizer.encode(torch.zeros(1, 3, 32, 64))


@pytest.mark.parametrize("size", [(64, 64), (32, 64)])
def test_autoencoder_shapes_follow_its_config(size):
    config = AutoencoderConfig(image_size=size, channels=(16, 16), patch=4)
    autoencoder = Autoencoder(config)
    frames = torch.rand(2, 3, *size) * 2 - 1
    recon, (_, tokens, _) = autoencoder(frames)
    assert recon.shape == frames.shape
    assert tokens.shape == (2, *config.grid[1:])
    assert torch.equal(tokens, autoencoder.encode(frames))
    assert autoencoder.flops_per_frame > 0


def test_pixels_survive_the_round_trip():
    values = torch.arange(256, dtype=torch.uint8).repeat(3, 1)[None, :, None]
    assert torch.equal(to_uint8(to_pixels(values)), values)


def test_frames_are_scaled_to_cover_and_cropped_in_the_middle():
    frame = np.zeros((1, 40, 100, 3), np.uint8)
    frame[:, :, 40:60] = 255
    out = resize(frame, (20, 20))
    assert out.shape == (1, 3, 20, 20)
    assert (out[..., 8:12] > 200).all()
    assert (out[..., :3] < 50).all()
