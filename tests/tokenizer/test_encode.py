"""Drives to tokens and back: complete, resumable, checked; the shipped tokenizer holds its word."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from drives import video
from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive
from drives.clips.frame_stream import FrameStream, read_ahead
from drives.clips.preprocessing import resize, to_pixels, to_uint8
from drives.clips.shards import Shard, find_shard
from drives.drive import Drive
from drives.folder import open_drives
from drives.splits.pieces import Piece, write_splits
from drives.tokens.store import TokenSpec, TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.video.gaps import Drop, find_drops, holes
from drives.writing import write_drive
from tokenizer.config import EncodeConfig
from tokenizer.decode import check_pair, decode_frames
from tokenizer.encode import average_rows, encode_drives
from tokenizer.evaluation import evaluate_tokenizer
from tokenizer.inference.config import AS_TRAINED
from tokenizer.inference.frame_encoder import FrameEncoder
from tokenizer.inference.winograd import WinogradConv2d
from tokenizer.load import PRETRAINED, load_tokenizer
from tokenizer.losses.lpips import load_lpips
from tokenizer.networks.autoencoder import Autoencoder
from tokenizer.networks.config import AutoencoderConfig
from training.errors import BadInput

# Tracks that neither the training nor the figures in the manifest have seen.
FRESH = CarRacingConfig(seed=77, num_train=2, num_val=0, num_test=0, seconds=6.0)

SMALL = partial(resize, size=(64, 64))


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
    reached = evaluate_tokenizer(tokenizer, drives, load_lpips("alex"), "cpu").means
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
    monkeypatch.setattr("tokenizer.encode.encode_frames", None)  # must not be called again
    again = encode_drives(drives, "carracing", tmp_path / "store", ACTION_NAMES)
    assert again.hash == store.hash


def test_an_interrupted_encoding_goes_on_where_it_stopped(drives, tmp_path, monkeypatch):
    import tokenizer.encode as encode

    real, seen = encode.encode_frames, []

    def stops_after_one(todo, *args):
        for number, *rest in real(todo, *args):
            seen.append(todo[number].id)
            yield number, *rest
            if stop:
                raise KeyboardInterrupt

    stop = True
    monkeypatch.setattr(encode, "encode_frames", stops_after_one)
    with pytest.raises(KeyboardInterrupt):
        encode_drives(drives, "carracing", tmp_path / "store", ACTION_NAMES)
    stop = False
    store = encode_drives(drives, "carracing", tmp_path / "store", ACTION_NAMES)
    assert seen == ["fresh-0", "fresh-1"]
    assert len(store.drives("train")) == 2


def test_every_drive_is_decoded_by_one_worker(drives, monkeypatch):
    stream = FrameStream([*drives, drives[0]], SMALL, 16, every=20)
    found = []
    for number in (0, 1):
        worker = SimpleNamespace(id=number, num_workers=2)
        monkeypatch.setattr("drives.clips.frame_stream.get_worker_info", lambda w=worker: w)
        found.append(sorted({batch.drive for batch in stream}))
    assert found == [[0, 2], [1]]


@pytest.mark.slow
def test_worker_processes_decode_the_same_frames_ahead(drives, monkeypatch):
    stream = FrameStream(drives, SMALL, 16, every=3)
    here = {(b.drive, tuple(b.frames.shape), int(b.frames.sum())) for b in read_ahead(stream, 0)}
    monkeypatch.setattr("drives.clips.frame_stream.WORTH_A_PROCESS", 1)
    loader = read_ahead(stream, 2)
    assert loader.num_workers == 2
    there = {(b.drive, tuple(b.frames.shape), int(b.frames.sum())) for b in loader}
    assert there == here
    assert sum(shape[0] for _, shape, _ in here) == sum(-(-len(d.actions) // 3) for d in drives)


def test_a_drive_that_cannot_be_read_is_named(drives, tmp_path, monkeypatch):
    monkeypatch.setattr(Drive, "frames", lambda *args: video.read_frames(tmp_path / "gone.mp4"))
    with pytest.raises(BadInput, match=r"gone\.mp4: cannot be read as a video"):
        encode_drives(drives, "carracing", tmp_path / "store", ACTION_NAMES)


def test_shards_share_the_drives_and_fill_one_store(drives, tmp_path):
    whole = encode_drives(drives, "carracing", tmp_path / "whole", ACTION_NAMES)
    for index in (0, 1):
        store = encode_drives(
            drives, "carracing", tmp_path / "parts", ACTION_NAMES, shard=Shard(index, 2)
        )
        assert len(store.manifest["drives"]) == index + 1
    assert store.hash == whole.hash
    with pytest.raises(BadInput, match="num_shards=3: there are 2 drives"):
        encode_drives(drives, "carracing", tmp_path / "x", ACTION_NAMES, shard=Shard(2, 3))


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, Shard()),
        (
            {
                "SLURM_ARRAY_TASK_ID": "5",
                "SLURM_ARRAY_TASK_MIN": "3",
                "SLURM_ARRAY_TASK_COUNT": "4",
            },
            Shard(2, 4),
        ),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Shard(1, 2)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "1",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "RANK": "1",
                "WORLD_SIZE": "2",
            },
            Shard(3, 6),
        ),
    ],
)
def test_the_shard_comes_from_slurm_or_torchrun_unless_it_is_given(environment, shard):
    assert find_shard(None, None, environment) == shard
    assert find_shard(1, 7, environment) == Shard(1, 7)
    with pytest.raises(BadInput, match="give both"):
        find_shard(1, None, environment)
    with pytest.raises(BadInput, match="shard=7: give a whole number from 0 to 6"):
        find_shard(7, 7, environment)


def test_every_drive_is_in_exactly_one_shard_of_about_equal_length(drives):
    many = [
        replace(drives[0], path=Path(f"d{i}"), actions=np.zeros((10 * (i + 1), 1)))
        for i in range(9)
    ]
    shares = [Shard(i, 4).take(many) for i in range(4)]
    assert sorted(d.id for share in shares for d in share) == [d.id for d in many]
    lengths = [sum(len(d.actions) for d in share) for share in shares]
    assert max(lengths) - min(lengths) <= 90


def test_processes_that_write_one_store_lose_nothing_and_write_nothing_twice(tmp_path):
    spec = TokenSpec((1, 2, 2), 9, 10.0, 1, (8, 8), "t")
    writers = [TokenStoreWriter(tmp_path, spec, []) for _ in range(2)]
    tokens, actions = np.ones((3, 2, 2), int), np.zeros((3, 0))
    writers[0].write("a", "train", tokens, actions)
    writers[1].write("b", "train", tokens, actions)
    before = (tmp_path / "a.arrow").stat().st_mtime_ns
    writers[1].write("a", "train", tokens * 2, actions)
    drives = TokenStore(tmp_path).drives("train")
    assert [d.id for d in drives] == ["a", "b"]
    assert int(drives[0].tokens[0, 0, 0]) == 1
    assert (tmp_path / "a.arrow").stat().st_mtime_ns == before
    assert list(tmp_path.glob("*.partial")) == []


def test_what_speed_changes_is_measured_and_noted(drives, tmp_path, capsys, monkeypatch):
    drives = drives[:1]
    monkeypatch.setattr("tokenizer.encode.COMPARED_FRAMES", 40)
    config = EncodeConfig(dtype="bfloat16", channels_last=True)
    store = encode_drives(drives, "carracing", tmp_path / "bf16", ACTION_NAMES, config)
    exact = encode_drives(drives, "carracing", tmp_path / "fp32", ACTION_NAMES)
    pairs = zip(store.drives("train"), exact.drives("train"), strict=True)
    changed = np.mean([np.mean(a.tokens != b.tokens) for a, b in pairs])
    assert 0.001 < changed < 0.5
    name = "bfloat16 channels_last on cpu"
    noted = store.manifest["notes"][name]
    assert noted["changed_token_share"] == pytest.approx(changed, rel=0.3)
    assert f"{noted['changed_token_share']:.3%} of 2560 sampled" in capsys.readouterr().out
    assert all(e["meta"]["encoded_with"] == name for e in store.manifest["drives"].values())
    assert name not in exact.manifest["notes"]


def test_shards_join_what_they_have_noted(drives, tmp_path, monkeypatch):
    monkeypatch.setattr("tokenizer.encode.COMPARED_FRAMES", 20)
    config = EncodeConfig(dtype="bfloat16", channels_last=True, every=10)
    name, changed = "bfloat16 channels_last on cpu", 0
    for index in range(2):
        out, alone = tmp_path / "parts", tmp_path / str(index)
        for place in (out, alone):
            encode_drives(drives, "carracing", place, ACTION_NAMES, config, shard=Shard(index, 2))
        noted = TokenStore(alone).manifest["notes"][name]
        changed += noted["changed_token_share"] * noted["num_tokens_compared"]
    assert TokenStore(out).manifest["notes"][name] == {
        "changed_token_share": changed / 2560,
        "num_tokens_compared": 2560,
    }


def test_speed_settings_reach_the_model():
    tokenizer = load_tokenizer("carracing")
    frames = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    layouts = []

    def see(module, args):
        layouts.append((args[0].is_contiguous(memory_format=torch.channels_last), len(args[0])))

    for config in (EncodeConfig(), EncodeConfig(channels_last=True), EncodeConfig(winograd=True)):
        encoder = FrameEncoder(tokenizer, "cpu", config.inference)
        encoder.tokenizer.network.encoder.register_forward_pre_hook(see)
        tokens = encoder(frames)
        assert torch.equal(tokens, FrameEncoder(tokenizer, "cpu")(frames))
    assert layouts == [(False, 5), (True, 5), (False, 5)]
    assert any(isinstance(m, WinogradConv2d) for m in encoder.tokenizer.modules())
    assert next(tokenizer.parameters()).is_contiguous()
    with pytest.raises(BadInput, match="dtype='float8'"):
        EncodeConfig(dtype="float8")


def test_compiled_batches_have_one_size(monkeypatch):
    sizes = []

    def compile(part):
        part.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    tokenizer = load_tokenizer("carracing")
    encoder = FrameEncoder(tokenizer, "cpu", replace(AS_TRAINED, compile=True))
    frames = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    whole = encoder(frames)
    assert torch.equal(encoder(frames[:2]), whole[:2])
    assert sizes == [5, 5]


COMPILED = """
import torch
from tokenizer.inference.frame_encoder import FrameEncoder, changed_share
from tokenizer.inference.fast import InferenceConfig
from tokenizer.load import load_tokenizer
tokenizer = load_tokenizer("carracing")
frames = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
encoder = FrameEncoder(tokenizer, "cpu", InferenceConfig(compile=True))
share = changed_share(tokenizer, encoder, frames.split(6))
assert share["num_tokens_compared"] == 512
assert share["changed_token_share"] < 0.01, share
"""


@pytest.mark.slow
def test_compiled_tokens_are_nearly_the_same():
    # A process of its own: the compiler cannot trace the shape checks of a test run.
    subprocess.run([sys.executable, "-c", COMPILED], check=True)


def test_dropped_frames_are_named_and_noted(drives, tmp_path, capsys):
    path = tmp_path / "drives" / "gappy"
    shutil.copytree(drives[0].path, path)
    (path / "video.mp4").unlink()
    (path / "frames").mkdir()
    for number, frame in enumerate(drives[0].frames()):
        # As if frames 11, 12 and 41 had been lost.
        name = number + (2 if number > 10 else 0) + (1 if number > 38 else 0)
        Image.fromarray(frame).save(path / "frames" / f"frame_{name:04}.png")
    gappy = open_drives(tmp_path / "drives")
    store = encode_drives(gappy, "carracing", tmp_path / "store", ACTION_NAMES)
    said = capsys.readouterr()
    assert "3 frames are missing: 2 after frame 10, 1 after frame 38" in said.out + said.err
    assert store.manifest["drives"]["gappy"]["meta"]["dropped_frames"] == [[10, 2], [38, 1]]
    with pytest.raises(BadInput, match="2 after frame 10"):
        encode_drives(gappy, "carracing", tmp_path / "s", ACTION_NAMES, EncodeConfig(on_gap="stop"))
    with pytest.raises(BadInput, match="holds gappy, which has dropped frames"):  # by on_gap=warn
        encode_drives(gappy, "carracing", store.root, ACTION_NAMES, EncodeConfig(on_gap="stop"))
    rows = (path / "actions.csv").read_text().splitlines()
    (path / "actions.csv").write_text("\n".join([*rows, *rows[-3:]]) + "\n")
    with pytest.raises(BadInput, match=r"63 action rows for 60 frames \(3 frames are missing"):
        open_drives(tmp_path / "drives")


def test_holes_in_video_times_and_in_time_columns_are_found(drives, tmp_path):
    assert drives[0].drops == []
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height = stream.width = 64
        for number, frame in enumerate(islice(drives[0].frames(), 20)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = number + (3 if number > 6 else 0)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    assert find_drops(tmp_path / "v.mp4") == [Drop(6, 3)]
    path = tmp_path / "drives" / "timed"
    shutil.copytree(drives[0].path, path)
    head, *rows = (path / "actions.csv").read_text().splitlines()
    times = [1.7e9 + 0.1 * (i + (4 if i > 20 else 0)) for i in range(len(rows))]
    timed = [f"{row},{time:.2f}" for row, time in zip(rows, times, strict=True)]
    (path / "actions.csv").write_text("\n".join([f"{head},time_s", *timed]) + "\n")
    meta = json.loads((path / "drive.json").read_text())
    (path / "drive.json").write_text(json.dumps({**meta, "actions_sha256": ""}))
    assert open_drives(tmp_path / "drives")[0].drops == [Drop(20, 4)]
    # Jitter below half a frame is none, and neither are times that do not ascend.
    assert holes(np.array([0.0, 1.1, 2.0, 3.4, 4.0])) == []
    assert holes(np.array([0.0, 1.0, 1.0, 9.0])) == []


def test_every_second_frame_keeps_the_mean_of_the_actions_between(drives, tmp_path):
    store = encode_drives(drives, "carracing", tmp_path / "s", ACTION_NAMES, EncodeConfig(every=2))
    drive, tokens = drives[0], store.drives("train")[0]
    assert len(tokens.tokens) == -(-len(drive.actions) // 2)
    assert store.spec.fps == drive.fps / 2
    np.testing.assert_allclose(tokens.actions[3], drive.actions[6:8].mean(0), rtol=1e-5)
    np.testing.assert_allclose(average_rows(np.arange(5.0)[:, None], 2)[:, 0], [0.5, 2.5, 4.0])


def test_phases_encode_each_frame_once_and_rows_are_means_from_their_own_frames(drives, tmp_path):
    held = [drives[0], replace(drives[1], split="test")]
    whole = encode_drives(held, "carracing", tmp_path / "whole", ACTION_NAMES)
    config = EncodeConfig(every=3, phases="all")
    store = encode_drives(held, "carracing", tmp_path / "phases", ACTION_NAMES, config)
    ids = ["fresh-0", "fresh-0@1of3", "fresh-0@2of3"]
    assert [drive.id for drive in store.all] == [*ids, "fresh-1"]
    assert store.spec.fps == drives[0].fps / 3
    assert {one.content for one in store.footage("train")} == {drives[0].footage.content}
    source, told = whole.all[0].tokens, drives[0].actions
    for first, phase in enumerate(store.drives("train")):
        np.testing.assert_array_equal(phase.tokens, source[first::3])
        np.testing.assert_allclose(
            phase.actions[4], told[first + 12 : first + 15].mean(0), rtol=1e-5, atol=1e-6
        )
    np.testing.assert_array_equal(store.drives("test")[0].tokens, whole.all[1].tokens[::3])


def test_resampled_drives_encode_as_every_nth_frame_does(drives, tmp_path):
    """At a third of the rate: the same tokens and rows, and the manifest says what they were."""
    every = encode_drives(drives, "carracing", tmp_path / "e", ACTION_NAMES, EncodeConfig(every=3))
    slow = [drive.at_fps(drive.fps / 3) for drive in drives]
    store = encode_drives(slow, "carracing", tmp_path / "s", ACTION_NAMES)
    assert store.spec == every.spec
    for a, b in zip(every.all, store.all, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(a.actions[:-1], b.actions[:-1], rtol=1e-5, atol=1e-6)
    meta = store.manifest["drives"][drives[0].id]["meta"]
    assert meta["recorded_fps"] == drives[0].fps
    with pytest.raises(BadInput, match=r"one rate: give data\.source\.fps="):
        encode_drives([drives[0], slow[1]], "carracing", tmp_path / "m", ACTION_NAMES)


def test_another_tokenizers_store_is_refused(drives, tmp_path):
    store = encode_drives(drives, "carracing", tmp_path / "store", ACTION_NAMES)
    check_pair(store, load_tokenizer("carracing"))
    with pytest.raises(BadInput, match="not by this one"):
        check_pair(store, load_tokenizer("udacity"))


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


def test_pieces_of_a_drive_carry_footage_and_roads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (30, 64, 64, 3), np.uint8)
    write_drive(tmp_path / "drives/a", frames, np.zeros((30, 1)), ["steering"], {"fps": 10})
    pieces = [Piece("train", 0, 10), Piece("val", 12, 20, "seen"), Piece("val", 22, 30, "unseen")]
    write_splits(tmp_path / "splits.json", {"a": pieces}, {})
    drives = open_drives(tmp_path / "drives", splits=tmp_path / "splits.json")
    store = encode_drives(drives, "carracing", tmp_path / "store", ["steering"])
    assert [drive.id for drive in store.drives("val")] == ["a@12-20", "a@22-30"]
    (unseen,) = store.drives("val_unseen")
    assert (unseen.id, len(unseen.tokens)) == ("a@22-30", 8)
    assert [f.content for f in store.footage()] == [drive.footage.content for drive in drives]
    write_splits(tmp_path / "whole.json", {"a": [Piece("train", 0, 30)]}, {})
    drives = open_drives(tmp_path / "drives", splits=tmp_path / "whole.json")
    (whole,) = encode_drives(drives, "carracing", tmp_path / "whole", ["steering"]).all
    np.testing.assert_array_equal(whole.tokens[22:], unseen.tokens)
