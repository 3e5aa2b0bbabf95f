"""Every file of a checkpoint, damaged in twelve ways, is named; no bit of a manifest is spare."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageWriter

from training.checkpoints.folder import (
    SHARDS,
    begin,
    check_weights,
    check_whole,
    commit,
    find_checkpoint,
    partial_of,
    read_manifest,
    save_state,
    write_checkpoint,
)
from training.checkpoints.saving import FolderCheckpointIO
from training.errors import BadInput

pytestmark = pytest.mark.attack
ROOT = Path(__file__).parent.parent.parent
TENSORS = {f"layer.{i}": torch.randn(64, 64) for i in range(4)}
SEED = 0


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


CONTENTS = {
    "emptied": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "a byte short": lambda content: content[:-1],
    "first bit flipped": lambda content: flipped(content, 0),
    "middle bit flipped": lambda content: flipped(content, len(content) // 2),
    "last bit flipped": lambda content: flipped(content, len(content) - 1),
    "a byte appended": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "random bytes": lambda content: random.Random(SEED).randbytes(len(content)),
}
WAYS = (*CONTENTS, "removed", "a folder", "another file")


def damage(file, way):
    content = file.read_bytes()
    file.unlink()
    if way in CONTENTS:
        file.write_bytes(CONTENTS[way](content))
    elif way == "a folder":
        file.mkdir()
    elif way == "another file":
        other = file.parent / "state.pt"
        other = (
            other
            if other.is_file()
            else next(file.parents[1].glob("*.json"), file.parent / "manifest.json")
        )
        shutil.copyfile(other, file)


@pytest.fixture(params=["whole", "sharded"])
def checkpoint(request, tmp_path):
    path = tmp_path / "run/checkpoints/step-0000010"
    manifest = {"kind": "test", "config": {}, "step": 10}
    if request.param == "whole":
        state = {"global_step": 10, "optimizer_states": [{"moments": torch.randn(100)}]}
        write_checkpoint(path, TENSORS, manifest, state)
        return path
    begin(path)
    pieces = {f"weights/{name}": value for name, value in TENSORS.items()}
    pieces |= {f"optimizer_0/{name}/exp_avg": value.clone() for name, value in TENSORS.items()}
    writer = HuggingFaceStorageWriter(str(partial_of(path) / SHARDS), save_distributed=True)
    dcp.save(pieces, storage_writer=writer, no_dist=True)
    save_state({"global_step": 10, "sharded_groups": [[{"params": [*TENSORS]}]]}, partial_of(path))
    commit(path, manifest)
    return path


def test_every_damage_of_every_file_is_named(checkpoint):
    assert FolderCheckpointIO().load_checkpoint(checkpoint)["global_step"] == 10
    honest = shutil.copytree(checkpoint, checkpoint.parent.parent / "honest")
    names = [str(f.relative_to(honest)) for f in sorted(honest.rglob("*")) if f.is_file()]
    tried = 0
    for name in names:
        for way in WAYS:
            damage(checkpoint / name, way)
            for ask in (check_whole, FolderCheckpointIO().load_checkpoint):
                with pytest.raises(BadInput) as error:
                    ask(checkpoint)
                assert name in str(error.value), way
                assert len(str(error.value).splitlines()) == 1, way
            with pytest.raises(BadInput, match=r"is whole|manifest\.json"):
                find_checkpoint(checkpoint.parent.parent, resume=True)
            if name != "state.pt":
                with pytest.raises(BadInput):
                    check_weights(checkpoint)
            shutil.rmtree(checkpoint)
            shutil.copytree(honest, checkpoint)
            tried += 1
    print(f"{tried} damages of {len(names)} files, all named")
    (checkpoint / SHARDS).mkdir(exist_ok=True)
    shutil.copyfile(checkpoint / "state.pt", checkpoint / SHARDS / "extra.safetensors")
    with pytest.raises(BadInput, match=r"extra\.safetensors"):
        check_whole(checkpoint)


def test_every_bit_of_a_manifest_counts(checkpoint):
    file = checkpoint / "manifest.json"
    content = file.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"manifest\.json"):
            read_manifest(checkpoint)
    print(f"{8 * len(content)} flips, all noticed")


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_eval_ends_in_one_line(tmp_path, name):
    honest = ROOT / "tests/training/old_checkpoints/schema-1"
    path = shutil.copytree(honest, tmp_path / "checkpoint")
    (path / name).write_bytes((path / name).read_bytes()[:-3])
    done = subprocess.run(
        [sys.executable, "eval.py", f"ckpt={path}", f"paths.data={tmp_path}/data"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]  # no traceback
    assert line.startswith("error: ")
    assert name in line
