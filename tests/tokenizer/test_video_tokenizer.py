"""A video tokenizer is a tokenizer: saved, opened, and taking drives to a token store and back."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive
from drives.clips.preprocessing import resize, to_pixels, to_uint8
from drives.folder import open_drives
from drives.writing import write_drive
from tokenizer.config import EncodeConfig
from tokenizer.decode import decode_frames
from tokenizer.encode import encode_drives
from tokenizer.evaluation import evaluate_tokenizer
from tokenizer.inference.frame_encoder import FrameEncoder, sample_clips
from tokenizer.load import load_tokenizer, manifest_of
from tokenizer.losses.lpips import load_lpips
from tokenizer.networks.kinds import build_network
from tokenizer.networks.video.config import VideoAutoencoderConfig
from tokenizer.quantizers.config import FSQConfig
from training.checkpoints.folder import write_checkpoint
from training.errors import BadInput

CONFIG = VideoAutoencoderConfig(
    image_size=(32, 32),
    quantizer=FSQConfig((8, 5, 5)),
    clip_frames=9,
    time_downsampling=4,
    space_downsampling=8,
    channels=8,
    multipliers=(1, 2),
    num_res_blocks=1,
)


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    root = tmp_path_factory.mktemp("drives")
    made = make_drive(CarRacingConfig(seed=5, num_train=1, num_val=0, num_test=0, seconds=3.0), 0)
    frames, actions, meta = made
    write_drive(root / "one", frames, actions, ACTION_NAMES, {**meta, "split": "train"})
    return open_drives(root)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "video"
    torch.manual_seed(0)
    network = build_network(CONFIG)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.encoder.to_codes.weight.data *= 30  # spread over the codebook
    weights = {f"ema.module.{k}": v for k, v in network.state_dict().items()}
    write_checkpoint(path, weights, manifest_of(CONFIG))
    opened = load_tokenizer(path)
    assert isinstance(opened.network.config, VideoAutoencoderConfig)
    return path


@pytest.mark.parametrize(("every", "batch_size"), [(1, 64), (1, 5), (2, 64)])
def test_a_drive_becomes_one_step_per_latent_frame(drives, tokenizer, tmp_path, every, batch_size):
    config = EncodeConfig(every=every, batch_size=batch_size)
    store = encode_drives(drives, tokenizer, tmp_path / "store", ACTION_NAMES, config)
    opened, (encoded,), drive = load_tokenizer(tokenizer), store.drives("train"), drives[0]
    kept = np.stack(list(drive.frames()))[::every]
    steps = 1 + (len(kept) - 1) // 4
    assert store.spec.grid == (1, 4, 4)
    assert store.spec.frames_per_step == 4
    assert store.spec.fps == drive.fps / every
    assert encoded.tokens.shape == (steps, 4, 4)
    pixels = to_pixels(resize(kept[: 1 + 4 * (steps - 1)], (32, 32)))
    whole = opened.encode(pixels)
    assert torch.equal(whole, torch.from_numpy(encoded.tokens.astype(int)))
    assert len(whole.unique()) > 8
    # Row 1 is in force between the last frames of steps 1 and 2.
    span = drive.actions[4 * every : 8 * every]
    np.testing.assert_allclose(encoded.actions[1], span.mean(0), rtol=1e-5)
    decoded = np.stack(list(decode_frames(encoded.tokens, opened, batch_size=2)))
    assert len(decoded) == len(pixels)
    expected = to_uint8(opened.decode(whole)).permute(0, 2, 3, 1).numpy()
    assert np.abs(decoded.astype(int) - expected).max() <= 1


def test_drives_that_are_decoded_in_turns_do_not_mix(drives, tokenizer):
    opened = load_tokenizer(tokenizer)
    frames = resize(np.stack(list(drives[0].frames())), (32, 32))
    apart = [FrameEncoder(opened, "cpu")(part) for part in (frames, frames.flip(0))]
    encoder = FrameEncoder(opened, "cpu")
    streams, parts = (encoder.drive(), encoder.drive()), ([], [])
    for start in range(0, len(frames), 3):
        for stream, part, whole in zip(streams, parts, (frames, frames.flip(0)), strict=True):
            tokens = stream(whole[start : start + 3])
            part += [] if tokens is None else [tokens]
    for part, whole in zip(parts, apart, strict=True):
        assert torch.equal(torch.cat(part), whole)


FAST = [EncodeConfig(channels_last=True), EncodeConfig(dtype="bfloat16", channels_last=True)]


@pytest.mark.parametrize("config", FAST)
def test_a_fast_stream_gives_the_tokens_of_the_whole_clip(drives, tokenizer, config):
    opened = load_tokenizer(tokenizer)
    encoder = FrameEncoder(opened, "cpu", config.inference)
    seen = []
    encoder.tokenizer.network.encoder.layers[0].space.register_forward_pre_hook(
        lambda layer, args: seen.append((args[0].dtype, layer.weight.stride()[1]))
    )
    frames = resize(np.stack(list(drives[0].frames())), (32, 32))
    whole, stream, parts = encoder(frames), encoder.drive(), []
    for start in range(0, len(frames), 7):
        tokens = stream(frames[start : start + 7])
        parts += [] if tokens is None else [tokens]
    assert torch.equal(torch.cat(parts), whole)
    assert set(seen) == {(getattr(torch, config.dtype), 1)}  # channels lie side by side
    changed = (whole != FrameEncoder(opened, "cpu")(frames)).float().mean()
    assert changed == 0 if config.dtype == "float32" else 0 < changed < 0.3


def test_what_speed_changes_is_measured_on_clips_and_noted(
    drives, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr("tokenizer.encode.COMPARED_FRAMES", 27)
    config = replace(FAST[1], num_workers=0)
    fast = encode_drives(drives, tokenizer, tmp_path / "fast", ACTION_NAMES, config)
    exact = encode_drives(drives, tokenizer, tmp_path / "exact", ACTION_NAMES)
    (a,), (b,) = fast.drives("train"), exact.drives("train")
    noted = fast.manifest["notes"]["bfloat16 channels_last on cpu"]
    assert noted["num_tokens_compared"] == 27 // 9 * 3 * 16  # clips of 9 frames make 3 steps
    assert noted["changed_token_share"] == pytest.approx(np.mean(a.tokens != b.tokens), rel=0.5)


def test_samples_are_clips_of_kept_frames(drives):
    frames = resize(np.stack(list(drives[0].frames())), (32, 32))
    fit = partial(resize, size=(32, 32))
    first, last = sample_clips(drives, fit, 18, 9, every=3)
    assert torch.equal(first, frames[0:25:3])
    assert torch.equal(last, frames[len(frames) - 25 :: 3])
    (short,) = sample_clips(drives, fit, 9, 9, every=20)
    assert torch.equal(short, frames[::20])


@pytest.mark.parametrize(
    ("name", "value"), [("winograd", True), ("compile", True), ("frames_at_once", 1)]
)
def test_what_it_cannot_do_is_refused(tokenizer, name, value):
    with pytest.raises(BadInput, match=f"{name}=(true|1): .*leave it out"):
        FrameEncoder(load_tokenizer(tokenizer), "cpu", EncodeConfig(**{name: value}).inference)


def test_its_reconstructions_are_judged_clip_by_clip(drives, tokenizer):
    found = evaluate_tokenizer(load_tokenizer(tokenizer), drives, load_lpips("alex"), "cpu")
    assert found.names[:2] == [f"{drives[0].id}@0", f"{drives[0].id}@1"]
    scores = found.means
    assert scores["num_frames"] == len(drives[0].actions) // 9 * 9
    assert scores["bits_per_frame"] == pytest.approx(3 * 16 / 9 * np.log2(200))


def test_drives_shorter_than_a_clip_are_left_out_of_the_judgement(drives, tokenizer, tmp_path):
    frames, actions = drives[0].frames(0, 8), drives[0].actions[:8]
    meta = {"fps": 10, "split": "train"}
    write_drive(tmp_path / "short", frames, actions, ACTION_NAMES, meta)
    opened, short, judge = load_tokenizer(tokenizer), open_drives(tmp_path), load_lpips("alex")
    scores = evaluate_tokenizer(opened, [*short, *drives], judge, "cpu", max_frames=30).means
    assert (scores["num_drives"], scores["num_short_drives"]) == (1, 1)
    with pytest.raises(BadInput, match=r"all 1 drives.*shorter than the 9 frames.*longest: 8"):
        evaluate_tokenizer(opened, short, judge, "cpu")


def test_a_judgement_holds_a_few_recorded_frames_at_once(drives, tokenizer, monkeypatch):
    alive = most = 0

    class Frame(np.ndarray):
        """Tells when it is gone."""

        def __del__(self):
            nonlocal alive
            alive -= 1

    def frames(self):
        nonlocal alive, most
        for _ in range(27):
            frame = np.zeros((64, 64, 3), np.uint8).view(Frame)
            alive += 1
            most = max(most, alive)
            yield frame

    monkeypatch.setattr(type(drives[0]), "frames", frames)
    evaluate_tokenizer(load_tokenizer(tokenizer), drives, load_lpips("alex"), "cpu")
    assert 9 <= most <= 2 * 9


def test_a_checkpoint_of_an_unknown_network_is_refused(tmp_path):
    manifest = manifest_of(CONFIG)
    manifest["network"]["name"] = "hologram"
    write_checkpoint(tmp_path / "x", {}, manifest)
    with pytest.raises(BadInput, match="is unknown"):
        load_tokenizer(tmp_path / "x")
