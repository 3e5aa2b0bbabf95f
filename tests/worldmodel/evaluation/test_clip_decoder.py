"""Grids become the frames of their own drive, wherever in it a clip begins."""

import numpy as np
import pytest
import torch

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive
from drives.clips.preprocessing import to_uint8
from drives.drive import open_drive
from drives.tokens.store import TokenDrive, TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.writing import write_drive
from tokenizer.load import Tokenizer, load_tokenizer
from tokenizer.networks.kinds import build_network
from tokenizer.networks.video.config import VideoAutoencoderConfig
from tokenizer.quantizers.config import FSQConfig
from worldmodel.evaluation.clip_decoder import ClipDecoder, leads_of, places_of
from worldmodel.evaluation.evidence import Evidence
from worldmodel.evaluation.subject import between_ends, clips_of
from worldmodel.windows import TokenWindows

STEPS, PROMPT, LENGTH = 9, 2, 5


@pytest.fixture(scope="module")
def video():
    torch.manual_seed(0)
    config = VideoAutoencoderConfig(
        image_size=(16, 16),
        quantizer=FSQConfig((8, 5)),
        clip_frames=9,
        time_downsampling=4,
        space_downsampling=8,
        channels=8,
        multipliers=(1, 2),
        num_res_blocks=1,
    )
    network = build_network(config)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return Tokenizer(network, "video", {})


@pytest.fixture
def windows():
    rng = np.random.default_rng(0)
    drives = [rng.integers(0, 40, (STEPS, 2, 2)).astype(np.uint16) for _ in range(2)]
    rows = np.zeros((STEPS, 0), np.float32)
    return TokenWindows([TokenDrive(f"d{i}", "val", d, rows) for i, d in enumerate(drives)], LENGTH)


def near(frames, others):
    """Rounded to uint8 after a sum in another order."""
    return frames.shape == others.shape and (frames.int() - others.int()).abs().max() <= 1


def test_a_video_clip_is_a_part_of_its_drive(video, windows):
    ids = [0, 3, 7]
    assert places_of(windows, ids) == [("d0", 0), ("d0", 3), ("d1", 2)]
    tokens = torch.stack([torch.from_numpy(windows[i][0].astype(int)) for i in ids])
    decoder = ClipDecoder(video, tokens, PROMPT, leads_of(windows, ids))
    assert decoder.first_step == 1
    real = decoder.real()
    assert near(real[:, :4], decoder.prompt)
    others = torch.randint(0, 40, (3, LENGTH - PROMPT, 2, 2))
    future, ahead = decoder.after_prompt(others), decoder.one_step_ahead(others)
    for clip, (drive, start) in enumerate(places_of(windows, ids)):
        whole = torch.from_numpy(windows.drives[int(drive[1])].tokens.astype(int))
        frames = to_uint8(video.decode(whole))
        stop, prompt = 1 + (start + LENGTH - 1) * 4, start + PROMPT
        assert near(real[clip], frames[1 + start * 4 : stop])
        imagined = torch.cat([whole[:prompt], others[clip]])
        assert near(future[clip], to_uint8(video.decode(imagined))[-12:])
        for step in range(LENGTH - PROMPT):
            one = torch.cat([whole[: prompt + step], others[clip, step : step + 1]])
            expected = to_uint8(video.decode(one))[-4:]
            assert near(ahead[clip, 4 * step : 4 * step + 4], expected)
    assert near(real, decoder.real())  # nothing that was decoded is remembered


def test_a_grid_of_an_image_tokenizer_is_a_frame():
    tokenizer = load_tokenizer("carracing")
    tokens = torch.randint(0, tokenizer.spec(10).vocab_size, (2, 4, *tokenizer.spec(10).grid[1:]))
    decoder = ClipDecoder(tokenizer, tokens, 2, [np.zeros((0, 8, 8), np.uint16)] * 2)
    assert decoder.first_step == 0
    frames = decoder.real()
    assert torch.equal(frames[1, 3], to_uint8(tokenizer.decode(tokens[1, 3:]))[0])
    assert torch.equal(frames[:, :2], decoder.prompt)
    for decoded in (decoder.after_prompt(tokens[:, 2:]), decoder.one_step_ahead(tokens[:, 2:])):
        assert torch.equal(decoded, frames[:, 2:])


@pytest.mark.parametrize("every", [1, 2])
def test_the_camera_shows_what_the_steps_stand_for(video, tmp_path, every):
    racing = CarRacingConfig(seed=3, num_train=1, num_val=0, num_test=0, seconds=5.0)
    frames, actions, meta = make_drive(racing, 0)
    write_drive(tmp_path / "one", frames, actions, ACTION_NAMES, {**meta, "split": "test"})
    drive = open_drive(tmp_path / "one")
    kept = np.stack(list(drive.frames()))[::every]
    steps = 1 + (len(kept) - 1) // 4
    spec = video.spec(10.0 / every)
    tokens = np.random.default_rng(0).integers(0, 40, (steps, 2, 2)).astype(np.uint16)
    writer = TokenStoreWriter(tmp_path / "store", spec, ())
    writer.write("one", "test", tokens, np.zeros((steps, 0), np.float32))
    evidence = Evidence(TokenStore(tmp_path / "store"), [drive], video, every)
    chosen = between_ends(TokenWindows(evidence.store.drives("test"), LENGTH), 1)
    found = clips_of(evidence, chosen, PROMPT, "cpu")
    clips, decoder, seen = found.tokens, found.decoder, found.frames
    (start,) = (i for i in range(steps) if np.array_equal(tokens[i : i + LENGTH], clips.tokens[0]))
    assert start > 0
    ends = [4 * (start + step) for step in range(LENGTH)]  # the last frame of each step
    shown = spec.preprocessing.fit(kept[ends[0] + 1 : ends[-1] + 1], spec.image_size)
    assert torch.equal(seen[0], shown)
    assert decoder.real().shape == seen.shape
