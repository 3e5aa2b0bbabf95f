"""Checkpoints are whole or refused, and never run a stranger's code."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import lightning as L
import pytest
import torch

from training.checkpoints.folder import (
    check_whole,
    find_checkpoint,
    newest_first,
    open_checkpoint,
    read_manifest,
    read_weights,
    write_checkpoint,
)
from training.checkpoints.manifests import read_resumable
from training.checkpoints.saving import FolderCheckpointIO, SaveCheckpoints
from training.disk.hashing import file_sha256
from training.disk.records import read_record, write_record
from training.disk.status import read_status
from training.errors import BadInput, NotSaved, TrainingFault

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
            check_whole(checkpoint)


def test_a_folder_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"?")
    with pytest.raises(BadInput, match="not a dashcast checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(BadInput, match="no such file"):
        find_checkpoint(tmp_path / "nowhere")


def reseal(checkpoint, **changes):
    """What a stranger would do: change the manifest and seal it again."""
    manifest = {**read_record(checkpoint / "manifest.json"), **changes}
    write_record(checkpoint / "manifest.json", manifest)


def test_another_schema_is_named(checkpoint):
    reseal(checkpoint, schema_version=99)
    with pytest.raises(BadInput, match="schema 99"):
        read_manifest(checkpoint)


def test_an_altered_manifest_is_noticed(checkpoint):
    file = checkpoint / "manifest.json"
    honest = file.read_text()
    for change in (('"kind": "test"', '"kind": "tess"'), ('version": 3', 'version": 2')):
        file.write_text(honest.replace(*change))
        with pytest.raises(BadInput, match=r"manifest\.json"):
            read_manifest(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {}}, "names no weights"),
        ({"files": []}, "files="),
        ({"files": {"state.pt": "0"}}, "names no weights"),
        ({"files": {"weights.safetensors": 3}}, "give a valid string"),
        ({"sizes": {}}, "sizes"),
        ({"step": "20"}, "step='20'"),
        ({"step": -1}, "step=-1"),
        ({"config": []}, "config="),
        ({"run": {"global_batch": "4"}}, "global_batch='4'"),
        ({"schema_version": "3"}, "schema 3"),
        ({"kind": None}, "kind=None"),
    ],
)
def test_values_of_a_stranger_s_manifest_are_judged(checkpoint, changes, message):
    reseal(checkpoint, **changes)
    with pytest.raises(BadInput, match=message):
        read_manifest(checkpoint)


def test_weights_are_read_without_the_optimizer_state(checkpoint):
    (checkpoint / "state.pt").write_bytes(b"?" * (checkpoint / "state.pt").stat().st_size)
    run = checkpoint.parent.parent
    assert find_checkpoint(run) == checkpoint
    assert read_weights(checkpoint).keys() == WEIGHTS.keys()
    with pytest.raises(BadInput, match="none of its 1 checkpoints is whole"):
        find_checkpoint(run, resume=True)
    with pytest.raises(BadInput, match=r"state\.pt: altered"):
        FolderCheckpointIO().load_checkpoint(checkpoint)


def test_the_newest_whole_checkpoint_of_a_run_is_found(checkpoint, capsys):
    run = checkpoint.parent.parent
    newer = checkpoint.with_name("step-0000020")
    write_checkpoint(newer, WEIGHTS, {"kind": "test"}, {"global_step": 20})
    assert find_checkpoint(run) == newer
    (newer / "weights.safetensors").write_bytes(b"cut")
    assert find_checkpoint(run) == checkpoint
    assert "step-0000020" in capsys.readouterr().out


def test_an_export_cannot_be_resumed(tmp_path):
    write_checkpoint(tmp_path / "export", WEIGHTS, {"kind": "test"})
    for ask in (FolderCheckpointIO().load_checkpoint, read_resumable):
        with pytest.raises(BadInput, match="cannot be resumed"):
            ask(tmp_path / "export")


def test_published_weights_cannot_be_resumed(tmp_path):
    write_checkpoint(tmp_path / "x", WEIGHTS, {"kind": "test"}, {"global_step": 1})
    with pytest.raises(BadInput, match="no settings of a run"):
        read_resumable(tmp_path / "x")


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
    """Make the manifest agree with the files."""
    names = read_record(checkpoint / "manifest.json")["files"]
    reseal(
        checkpoint,
        files={name: file_sha256(checkpoint / name) for name in names},
        sizes={name: (checkpoint / name).stat().st_size for name in names},
    )


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
    manifest = read_record(checkpoint / "manifest.json")
    reseal(checkpoint, files={**manifest["files"], "../../../secret": "0"})
    with pytest.raises(BadInput, match="outside of its folder"):
        read_manifest(checkpoint)


def saved(step, size=1):
    weights = {"a": torch.full((size,), float(step))}
    return {"state_dict": weights, "dashcast": {"kind": "test"}, "global_step": step}


@pytest.mark.parametrize("large", ["state_dict", "optimizer"])  # two libraries write them
@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_costs_nothing_that_was_there(small_disk, background, large):
    io = FolderCheckpointIO(background, keep=2)
    older, newer = (small_disk / f"step-{step:07d}" for step in (10, 20))
    io.save_checkpoint(saved(10), older)
    io.save_checkpoint({**saved(20), large: {"a": torch.zeros(2_000_000)}}, newer)
    io.wait()
    (failure,) = io.lost()
    assert failure.path == newer
    assert "MB are free" in str(failure)
    assert len(str(failure).splitlines()) == 1
    assert [p.name for p in small_disk.iterdir()] == [older.name]
    assert find_checkpoint(small_disk) == older
    io.save_checkpoint(saved(20), newer)
    io.teardown()
    assert find_checkpoint(small_disk) == newer


def test_a_save_lost_in_the_background_is_named_and_the_next_one_is_tried(small_disk):
    io = FolderCheckpointIO(background=True, keep=2)
    lost, next_ = (small_disk / f"step-{step:07d}" for step in (10, 20))
    io.save_checkpoint(saved(10, 2_000_000), lost)
    io.save_checkpoint(saved(20), next_)
    io.wait()
    assert [failure.path for failure in io.lost()] == [lost]
    assert find_checkpoint(small_disk) == next_
    io.save_checkpoint(saved(30, 2_000_000), small_disk / "step-0000030")
    with pytest.raises(NotSaved, match="step-0000030"):
        io.teardown()  # nobody has asked


def test_keep_counts_whole_checkpoints_only(tmp_path):
    io = FolderCheckpointIO(keep=2)
    folders = [tmp_path / f"step-{step:07d}" for step in (1, 2, 3, 4)]
    for step, folder in enumerate(folders[:3], 1):
        io.save_checkpoint(saved(step), folder)
        if step == 2:
            (folder / "weights.safetensors").write_bytes(b"cut")
    assert sorted(tmp_path.iterdir()) == folders[:3]  # two whole ones: 1 and 3
    io.save_checkpoint(saved(4), folders[3])
    assert sorted(tmp_path.iterdir()) == folders[2:]


def test_in_the_background_the_values_at_the_time_of_the_call_are_saved(tmp_path, monkeypatch):
    import training.checkpoints.saving as saving

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
    import training.checkpoints.saving as saving

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


CUT = (
    "+debug=fast",
    "callbacks.media=null",
    "checkpoints.every_steps=2",
    "trainer.max_steps=6",
)


class FullDisk(L.Callback):
    """Leaves no room for a checkpoint while the given steps are taken."""

    def __init__(self, disk, *steps):
        self.ballast, self.steps = disk / "ballast", steps

    def on_train_batch_start(self, trainer, *args):
        trainer.strategy.checkpoint_io.wait()
        self.ballast.unlink(missing_ok=True)
        if trainer.global_step + 1 in self.steps:
            self.ballast.write_bytes(bytes(shutil.disk_usage(self.ballast.parent).free - 30_000))


@pytest.mark.parametrize("background", [False, True])
def test_a_run_goes_on_when_the_disk_is_full_in_between(
    composed, fit, small_disk, background, capsys
):
    cfg = composed(
        "gpt_tiny", *CUT, f"run={small_disk}/run", f"checkpoints.background={background}"
    )
    _, run, _ = fit(cfg, FullDisk(small_disk, 4))
    assert [p.name for p in newest_first(run.folder)] == ["step-0000006", "step-0000002"]
    assert "step-0000004: could not be written" in capsys.readouterr().out
    assert read_status(run.folder)["state"] == "finished"


def test_the_last_save_has_to_succeed(composed, fit, small_disk):
    cfg = composed("gpt_tiny", *CUT, f"run={small_disk}/run")
    with pytest.raises(TrainingFault, match="step-0000006: could not be written") as fault:
        fit(cfg, FullDisk(small_disk, 6))
    assert len(str(fault.value).splitlines()) == 1
    folder = small_disk / "run"
    assert read_status(folder)["state"] == "failed"
    assert [p.name for p in newest_first(folder)] == ["step-0000004", "step-0000002"]
    (small_disk / "ballast").unlink()
    fit(cfg)
    assert read_status(folder)["state"] == "finished"
    assert newest_first(folder)[0].name == "step-0000006"


class Terminate(L.Callback):
    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_save_asked_for_by_a_signal_has_to_succeed(composed, fit, small_disk):
    cfg = composed("gpt_tiny", *CUT, f"run={small_disk}/run")
    with pytest.raises(TrainingFault, match="step-0000004: could not be written"):
        fit(cfg, Terminate(), FullDisk(small_disk, 4))
    status = read_status(small_disk / "run")
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert [p.name for p in newest_first(small_disk / "run")] == ["step-0000002"]


def test_a_damaged_last_checkpoint_is_written_again(composed, fit, capsys):
    cfg = composed("gpt_tiny", *CUT)
    fit(cfg)
    last = Path(cfg.run) / "checkpoints/step-0000006"
    whole = {key: value.clone() for key, value in read_weights(last).items()}  # no file mapped
    for name in ("weights.safetensors", "state.pt", "manifest.json"):
        content = bytearray((last / name).read_bytes())
        content[len(content) // 2] ^= 1
        (last / name).write_bytes(content)
        fit(cfg)
        assert "is now .step-0000006.damaged" in capsys.readouterr().out
        again = read_weights(last)
        assert all(torch.equal(again[key], whole[key]) for key in whole)
        assert check_whole(last)
        assert sorted(os.listdir(last.parent)) == ["step-0000004", "step-0000006"]


class Damage(L.Callback):
    """Flips a bit of the last checkpoint after it is written, before the run ends."""

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 6:
            folder = newest_first(Path(trainer.default_root_dir))[0]
            content = bytearray((folder / "state.pt").read_bytes())
            content[100] ^= 1
            (folder / "state.pt").write_bytes(content)


def test_a_run_whose_last_checkpoint_is_damaged_does_not_say_finished(composed, fit):
    cfg = composed("gpt_tiny", *CUT)
    with pytest.raises(TrainingFault, match=r"state\.pt: altered"):
        fit(cfg, Damage())
    assert read_status(Path(cfg.run))["state"] == "failed"


def test_a_checkpoint_of_schema_1_opens_and_resumes(composed, fit, tmp_path):
    from worldmodel.load import load_world_model

    old = Path(__file__).parents[1] / "old_checkpoints/schema-1"
    assert json.loads((old / "manifest.json").read_text())["schema_version"] == 1
    assert load_world_model(old)
    folder = tmp_path / "runs/old/checkpoints/step-0000002"
    shutil.copytree(old, folder)
    cut = (
        "+debug=fast",
        "callbacks.media=null",
        "trainer.max_steps=4",
        f"run={tmp_path}/runs/old",
    )
    small = ("model.network.dim=12", "model.network.num_layers=1")
    before = (
        "optimizer=adamw",
        "model.network.share_factors=false",
        "model.network.layout.action_scale=symlog",
    )
    _, run, trainer = fit(composed("gpt_tiny", *cut, *small, *before))
    assert run.resume_from == str(folder)
    assert trainer.global_step == 4
    assert trainer.train_dataloader.order.samples_consumed == 4 * 4


def test_opening_a_run_reads_each_byte_once_and_no_optimizer_state(tmp_path, monkeypatch):
    from training.checkpoints import weights

    path = tmp_path / "run/checkpoints/step-0000001"
    write_checkpoint(path, WEIGHTS, {"kind": "test"}, {"optimizer_states": []})
    hashed, sha256 = [], weights.file_sha256
    monkeypatch.setattr(weights, "file_sha256", lambda f: hashed.append(f.name) or sha256(f))
    opened = open_checkpoint(tmp_path / "run", "test")
    assert (opened.path, opened.weights.keys()) == (path, WEIGHTS.keys())
    assert hashed == []
    with pytest.raises(BadInput, match="is a test checkpoint"):
        open_checkpoint(path, "tokenizer")
