"""Checkpoints are whole or refused, and never run a stranger's code."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

from training.checkpoints import (
    find_checkpoint,
    newest_first,
    read_manifest,
    read_weights,
    write_checkpoint,
)
from training.errors import BadInput
from training.hashing import file_sha256
from training.saving import FolderCheckpointIO, SaveCheckpoints

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "run" / "checkpoints" / "step-0000010"
    write_checkpoint(path, WEIGHTS, {"kind": "test", "config": {}}, {"global_step": 10})
    return path


def test_what_is_written_is_read(checkpoint):
    assert read_manifest(checkpoint)["kind"] == "test"
    weights = read_weights(checkpoint)
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[k], WEIGHTS[k]) for k in WEIGHTS)
    assert FolderCheckpointIO().load_checkpoint(checkpoint)["global_step"] == 10


def test_nothing_is_overwritten(checkpoint):
    with pytest.raises(BadInput, match="never overwritten"):
        write_checkpoint(checkpoint, WEIGHTS, {})


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt"])
def test_a_truncated_or_altered_file_is_named(checkpoint, name):
    file = checkpoint / name
    content = file.read_bytes()
    for broken in (content[:-7], content[:100] + b"x" + content[101:]):
        file.write_bytes(broken)
        with pytest.raises(BadInput, match=name):
            read_manifest(checkpoint)


def test_a_folder_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"?")
    with pytest.raises(BadInput, match="not a dashcast checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(BadInput, match="no such file"):
        find_checkpoint(tmp_path / "nowhere")


def test_another_schema_is_named(checkpoint):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(BadInput, match="schema 99"):
        read_manifest(checkpoint)


def test_the_newest_whole_checkpoint_of_a_run_is_found(checkpoint, capsys):
    run = checkpoint.parent.parent
    newer = checkpoint.with_name("step-0000020")
    write_checkpoint(newer, WEIGHTS, {"kind": "test"}, {"global_step": 20})
    assert find_checkpoint(run) == newer
    (newer / "state.pt").write_bytes(b"cut")
    assert find_checkpoint(run) == checkpoint
    assert "step-0000020" in capsys.readouterr().out


def test_an_export_cannot_be_resumed(tmp_path):
    write_checkpoint(tmp_path / "export", WEIGHTS, {"kind": "test"})
    with pytest.raises(BadInput, match="cannot be resumed"):
        FolderCheckpointIO().load_checkpoint(tmp_path / "export")


def test_a_malicious_pickle_does_not_run(tmp_path):
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = tmp_path / "step-0000001"
    write_checkpoint(path, WEIGHTS, {"kind": "test"}, {"evil": Evil(), "global_step": 1})
    with pytest.raises(Exception, match=r"weights_only|[Uu]nsupported"):
        FolderCheckpointIO().load_checkpoint(path)
    assert not marker.exists()


class Mischief:
    """Unpickled freely, it leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def rehash(checkpoint):
    """What a stranger would do: make the manifest agree with the files."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"] = {name: file_sha256(checkpoint / name) for name in manifest["files"]}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_a_pickle_that_would_run_code_is_refused_without_running_it(checkpoint, tmp_path):
    marker = tmp_path / "ran"
    torch.save({"global_step": Mischief(marker)}, checkpoint / "state.pt")
    rehash(checkpoint)
    with pytest.raises(BadInput, match=r"state.pt: refused"):
        FolderCheckpointIO().load_checkpoint(checkpoint)
    assert not marker.exists()
    torch.load(checkpoint / "state.pt", weights_only=False)
    assert marker.exists()  # it would have


def test_a_manifest_cannot_point_outside_of_its_folder(checkpoint):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"]["../../../secret"] = "0"
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="outside of its folder"):
        read_manifest(checkpoint)


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_costs_nothing_that_was_there(checkpoint, background, monkeypatch):
    import training.checkpoints as checkpoints

    io = FolderCheckpointIO(background, keep=2)
    newer = checkpoint.with_name("step-0000020")
    state = {"state_dict": WEIGHTS, "dashcast": {"kind": "test"}, "global_step": 20}

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)

    def save():
        io.save_checkpoint(state, newer)
        io.wait()

    with pytest.raises(OSError, match="No space"):
        save()
    assert [p.name for p in checkpoint.parent.iterdir()] == [checkpoint.name]
    assert find_checkpoint(checkpoint.parent) == checkpoint
    monkeypatch.undo()
    io.save_checkpoint(state, newer)
    io.teardown()
    assert find_checkpoint(checkpoint.parent) == newer


def test_in_the_background_the_values_at_the_time_of_the_call_are_saved(tmp_path, monkeypatch):
    import training.saving as saving

    weights = {"a": torch.zeros(3)}
    moments = torch.zeros(2)
    state = {"state_dict": weights, "dashcast": {"kind": "test"}, "global_step": 1, "m": [moments]}
    started, may_write = threading.Event(), threading.Event()
    honest = saving.write_checkpoint

    def slow(*args):
        started.set()
        assert may_write.wait(20)
        honest(*args)

    monkeypatch.setattr(saving, "write_checkpoint", slow)
    io = FolderCheckpointIO(background=True, keep=2)
    path = tmp_path / "step-0000001"
    io.save_checkpoint(state, path)
    assert started.wait(20)
    assert not path.exists()  # the call came back before anything is written
    weights["a"] += 1
    moments += 1
    may_write.set()
    io.teardown()
    loaded = io.load_checkpoint(path)
    assert torch.equal(loaded["state_dict"]["a"], torch.zeros(3))
    assert torch.equal(loaded["m"][0], torch.zeros(2))


def test_old_ones_go_only_when_the_new_one_is_durable(tmp_path, monkeypatch):
    import training.saving as saving

    io = FolderCheckpointIO(background=False, keep=2)
    (tmp_path / ".step-0000001.partial").mkdir()  # left by a run that was killed
    present = []
    honest = saving.write_checkpoint

    def watched(path, *args):
        honest(path, *args)
        present.append(sorted(p.name for p in tmp_path.glob("step-*")))

    monkeypatch.setattr(saving, "write_checkpoint", watched)
    for step in (1, 2, 3, 4):
        state = {"state_dict": WEIGHTS, "dashcast": {"kind": "test"}, "global_step": step}
        io.save_checkpoint(state, tmp_path / f"step-{step:07d}")
    assert [len(names) for names in present] == [1, 2, 3, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000003", "step-0000004"]
    with pytest.raises(BadInput, match="keep at least 2"):
        SaveCheckpoints(tmp_path, FolderCheckpointIO(keep=1))


def test_a_run_goes_on_when_the_disk_is_full_in_between(composed, fit, monkeypatch, capsys):
    import training.checkpoints as checkpoints

    honest, calls = checkpoints.save_file, []

    def sometimes(*args):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        honest(*args)

    monkeypatch.setattr(checkpoints, "save_file", sometimes)
    cut = ("+debug=worldmodel", "media=none", "trainer.max_steps=6", "checkpoints.every_steps=2")
    _, run, _ = fit(composed("gpt_tiny", *cut))
    assert [p.name for p in newest_first(run.folder)] == ["step-0000006", "step-0000002"]
    assert "training goes on" in capsys.readouterr().out


def test_a_checkpoint_of_schema_1_opens_and_resumes(composed, fit, tmp_path):
    from worldmodel.load import load_world_model

    old = Path(__file__).parent / "old_checkpoints/schema-1"
    assert json.loads((old / "manifest.json").read_text())["schema_version"] == 1
    assert load_world_model(old)
    folder = tmp_path / "runs/old/checkpoints/step-0000002"
    shutil.copytree(old, folder)
    cut = ("+debug=worldmodel", "media=none", "trainer.max_steps=4", f"run={tmp_path}/runs/old")
    small = ("model.network.dim=12", "model.network.num_layers=1")
    _, run, trainer = fit(composed("gpt_tiny", *cut, *small))
    assert run.resume_from == str(folder)
    assert trainer.global_step == 4
    assert trainer.train_dataloader.order.samples_consumed == 4 * 4
