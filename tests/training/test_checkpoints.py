"""Checkpoints are whole or refused, and never run a stranger's code."""

import json
import os

import pytest
import torch

from training.checkpoints import (
    find_checkpoint,
    read_manifest,
    read_weights,
    write_checkpoint,
)
from training.errors import BadInput
from training.saving import FolderCheckpointIO

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
