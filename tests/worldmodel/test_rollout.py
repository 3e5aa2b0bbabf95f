"""`python -m worldmodel.rollout`: futures of a trained run, as tokens and as pictures."""

import importlib
import sys

import numpy as np
import pytest
import torch

from drives.exporters.__main__ import main as export_main
from drives.folder import open_folders
from drives.importers.formats import RECORDING_FORMATS
from drives.tokens.store import TokenStore
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.load import load_world_model
from worldmodel.windows import collate

TINY = [
    "+debug=fast",
    "callbacks.media=null",
    "trainer.max_steps=2",
    "checkpoints.every_steps=2",
    "model.network.num_layers=1",
    "data.source.carracing.seconds=5.0",
]


@pytest.fixture
def roll(monkeypatch, capsys):
    """`roll(ckpt, out, ...)`: what the command prints."""

    def call(ckpt, out, *settings):
        arguments = [f"ckpt={ckpt}", f"out={out}", *map(str, settings)]
        monkeypatch.setattr(sys, "argv", ["rollout", *arguments])
        importlib.import_module("worldmodel.rollout").main()
        return capsys.readouterr().out

    return call


def test_a_run_is_rolled_out_as_tokens_and_pictures(composed, fit, roll, tmp_path):
    run = fit(composed("gpt_tiny", *TINY))[1].folder
    out = tmp_path / "futures"
    settings = ["num_clips=2", "num_futures=2", "prompt_steps=3", "horizon_s=0.5"]
    said = roll(run, out, *settings, "drives=true")
    assert "2 x 2 futures of 5 steps after 3 real ones" in said
    for kind in ("gif", "mp4", "png"):
        assert str(out / f"rollouts.{kind}") in said
        assert (out / f"rollouts.{kind}").stat().st_size > 0
    store, model = TokenStore(out), load_world_model(run)
    assert store.action_names == model.action_names
    drives = store.drives("test")
    names = [drive.id for drive in drives]
    assert names == [f"clip-{n:02d}-future-{m:02d}" for n in range(2) for m in range(2)]
    # They are what the decoder makes of the same prompts and actions.
    clip = collate([(drive.tokens[:3], drive.actions) for drive in drives[::2]])
    expected = rollout(model.network, clip.tokens, clip.actions, 5, Sampling(top_k=50), 2)
    written = np.stack([drive.tokens[3:] for drive in drives]).reshape(expected.shape)
    assert torch.equal(torch.from_numpy(written.astype(int)), expected)
    about = store.manifest["drives"][names[0]]["meta"]
    assert about["from"].keys() == {"drive", "step"}
    assert about["prompt_steps"] == 3
    written_drives = open_folders(out / "drives")
    assert [drive.id for drive in written_drives] == names
    for one, other in zip(drives, written_drives, strict=True):
        assert np.allclose(one.actions, other.actions, atol=1e-6)
        assert (other.fps, other.num_frames, other.meta["prompt_frames"]) == (10, 8, 3)
    prompts = [next(iter(drive.frames())) for drive in written_drives]
    assert np.array_equal(prompts[0], prompts[1])  # of one clip
    assert not np.array_equal(prompts[0], prompts[2])
    exported = tmp_path / "lerobot"
    export_main(["lerobot", str(out / "drives"), str(exported)])
    found = RECORDING_FORMATS["lerobot"].recordings(exported)
    assert [len(recording.actions) for recording in found] == [8] * 4
    assert np.allclose(found[3].actions, written_drives[3].actions)
    roll(run, tmp_path / "again", *settings)
    again = TokenStore(tmp_path / "again").drives("test")
    for one, other in zip(drives, again, strict=True):
        assert np.array_equal(one.tokens, other.tokens)
    roll(run, tmp_path / "other", *settings, "sampling.seed=1")
    other = TokenStore(tmp_path / "other").drives("test")
    assert not np.array_equal(drives[0].tokens[3:], other[0].tokens[3:])
    # A store of futures is a store: its tokens are rolled out again, with the tokenizer known.
    said = roll(run, tmp_path / "third", f"data.root={out}", "num_clips=1", "horizon_s=0.1")
    assert "rollouts.gif" in said
    with pytest.raises(SystemExit):
        roll(run, out, *settings)
    with pytest.raises(SystemExit):
        roll(run, tmp_path / "long", "horizon_s=1000")
    with pytest.raises(SystemExit):
        roll(run, tmp_path / "deep", "prompt_steps=99")
    assert not (tmp_path / "long").exists()
    assert not (tmp_path / "deep").exists()
