"""A checkpoint says what it comes from, and is not judged on what it was trained on."""

import copy
import importlib
import json
import shutil
import sys

import pytest
from hydra import compose, initialize_config_dir

from drives.splits.trained_clips import refuse_trained_clips
from tokenizer.load import load_tokenizer
from training.checkpoints.folder import find_checkpoint
from training.checkpoints.manifests import read_manifest
from training.errors import BadInput
from training.help import CONFIGS, composed
from training.sweeps.snapshot import content_hash
from worldmodel.evaluation.evidence import DRIVES, Evidence, data_source
from worldmodel.evaluation.judge import judge
from worldmodel.evaluation.provenance.__main__ import main
from worldmodel.evaluation.provenance.chain import provenance
from worldmodel.evaluation.provenance.trained_clips import refuse_trained
from worldmodel.load import load_world_model

TINY = ("+debug=fast", "callbacks.media=null", "data.source.carracing.seconds=5.0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps, and the data module that it read."""
    import training.run as runs
    from tests.conftest import TINY_DRIVES

    folder = tmp_path_factory.mktemp("provenance")
    words = [
        "+experiment=gpt_tiny",
        f"paths.runs={folder}/runs",
        f"paths.data={folder.parent.parent}/data",
        "logger=none",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        *TINY_DRIVES,
        *TINY,
        "trainer.max_steps=2",
    ]
    cfg = composed("train", words)
    run = runs.open_run(cfg)
    data = runs.build_data(cfg)
    module = runs.build_model(cfg, data)
    trainer = runs.build_trainer(cfg, run, data, module)
    run.describe(data, module)
    run.fit(trainer, module, data)
    return run.folder, data


def test_a_checkpoint_says_all_of_it(trained, capsys, monkeypatch):
    folder, data = trained
    found = provenance(folder)
    assert found["kind"] == "worldmodel"
    assert found["code"]["code"] == content_hash()
    assert found["data"]["num_drives"] == {"train": 2, "val": 1, "test": 1}
    assert found["data"]["data_hash"] == data.data_hash
    assert list(found["data"]["licences"]) == [
        "MIT (Gymnasium); the frames carry no further rights"
    ]
    assert found["train_footage"] == sorted(
        {f.content for f in data.store.footage("train")}
        | {drive.footage.content for drive in data.drives if drive.split == "train"}
    )
    chain = found["tokenizer"]
    tokenizer = load_tokenizer("carracing")
    assert chain["weights"] == tokenizer.hash
    assert load_world_model(folder).spec.tokenizer in tokenizer.known_as
    assert chain["kind"] == "tokenizer"
    assert chain["code"]["git"]
    monkeypatch.setattr(sys, "argv", ["provenance", str(folder), "--json"])
    main()
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == found
    monkeypatch.setattr(sys, "argv", ["provenance", str(folder)])
    main()
    said = capsys.readouterr().out
    assert found["data"]["split_hash"] in said
    assert chain["weights"] in said


def test_a_store_without_a_note_is_helped_out_by_the_named_tokenizer(trained, monkeypatch):
    folder, _ = trained
    manifest = read_manifest(find_checkpoint(folder))
    manifest["run"].pop("tokenizer", None)  # the store may be of an older test run
    monkeypatch.setattr("worldmodel.evaluation.provenance.chain.read_manifest", lambda _: manifest)
    assert provenance(folder)["tokenizer"]["kind"] == "tokenizer"
    manifest["config"]["data"]["tokenizer"] = "runs/of_another_machine"
    assert provenance(folder)["tokenizer"] == {"weights": manifest["spec"]["tokenizer"]}


def test_an_altered_checkpoint_has_no_provenance(trained, tmp_path):
    copy = tmp_path / "step-000002"
    shutil.copytree(find_checkpoint(trained[0]), copy)
    content = bytearray((copy / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match="altered"):
        provenance(copy)


def test_clips_of_the_training_are_refused_unless_asked_for(trained, monkeypatch, capsys):
    folder, data = trained
    monkeypatch.setattr(sys, "argv", ["eval.py"])

    def call(*more):
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            judge(compose("eval", overrides=[f"ckpt={folder}", *more]))

    with pytest.raises(BadInput, match=r"trained on 2 of 2 drives of the train split \(train-0000"):
        call("split=train")
    assert not (folder / "eval").exists()
    # A train drive and a test drive changed places, under other names and with other facts.
    other = folder.parent / "drives"
    for name, split in (("train-0000", "test"), ("test-0000", "train")):
        shutil.copytree(data.source.folder / name, other / f"mine-{name}")
        meta = json.loads((other / f"mine-{name}/drive.json").read_text())
        meta |= {"split": split, "note": "mine"}
        (other / f"mine-{name}/drive.json").write_text(json.dumps(meta))
    with pytest.raises(BadInput, match=r"1 of 1 drives of the test split \(mine-train-0000\)"):
        call(f"data.root={other}")


def test_a_copy_is_known_by_its_content(trained, capsys):
    folder, data = trained
    checkpoint = find_checkpoint(folder)
    manifest = read_manifest(checkpoint)
    drives = data.source.open()

    def ask(manifest, split, **more):
        return refuse_trained_clips(manifest, checkpoint, split, **more)

    assert ask(manifest, "test", drives=drives) == []
    assert ask(manifest, "test", store=data.store) == []
    with pytest.raises(BadInput, match="2 of 2 drives of the train split"):
        ask(manifest, "train", store=data.store)
    assert ask(manifest, "train", store=data.store, allow=True) == ["train-0000", "train-0001"]
    assert "warning" in capsys.readouterr().out
    # Runs of before wrote no footage: their data.json tells.
    old = {**manifest, "run": {}}
    with pytest.raises(BadInput, match="2 of 2 drives of the train split"):
        ask(old, "train", store=data.store)
    assert ask(old, "test", store=data.store) == []
    assert refuse_trained_clips(old, folder.parent, "train", store=data.store) == []
    assert "does not say what it was trained on" in capsys.readouterr().out


COMMANDS = [
    ("worldmodel.rollout", ["ckpt={run}", "out={out}", "split=train"], "allow_train=true"),
    (
        "worldmodel.evaluation.decoding_bench",
        ["ckpt={run}", "split=train", "num_frames=2", "repeats=1"],
        "allow_train=true",
    ),
    ("worldmodel.evaluation.kinds_table", ["{run}", "--split", "train"], "--allow-train"),
]


@pytest.mark.parametrize(
    ("module", "words", "switch"), COMMANDS, ids=lambda x: x if "." in x else ""
)
def test_every_command_refuses_trained_clips(
    trained, tmp_path, monkeypatch, capsys, module, words, switch
):
    words = [word.format(run=trained[0], out=tmp_path / "out") for word in words]
    monkeypatch.setattr(sys, "argv", [module, *words])
    command = importlib.import_module(module).main
    with pytest.raises(SystemExit) as end:
        command(words) if module.endswith("kinds_table") else command()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert "trained on 2 of 2 drives of the train split" in said
    assert f"give {switch} to" in said
    assert not (tmp_path / "out").exists()


def test_clips_of_the_tokenizers_training_are_refused(trained, capsys):
    """Its footage is known from its own manifest, the store's note or the model's checkpoint."""
    folder, data = trained
    model = load_world_model(folder)
    shown = [one.content for one in data.store.footage("test")]
    note = {"weights": "f" * 64, "train_footage": shown, "data": {"validated_on": "val"}}
    store = copy.copy(data.store)
    store.manifest = data.store.manifest | {"notes": {"tokenizer": note}}
    evidence = Evidence(store)
    with pytest.raises(BadInput, match="tokenizer ffffffffffff: was trained on 1 of 1 drives"):
        refuse_trained([model], evidence, "test")
    refuse_trained([model], evidence, "test", allow=True)
    assert "warning: tokenizer ffffffffffff" in capsys.readouterr().out
    note["train_footage"] = None  # as of a published one
    refuse_trained([model], evidence, "test")
    model.manifest["run"]["tokenizer"] = note | {"train_footage": shown}
    with pytest.raises(BadInput, match="tokenizer"):
        refuse_trained([model], evidence, "test")
    model.manifest["run"].pop("tokenizer")
    opened = load_tokenizer("carracing")
    opened.manifest["run"]["train_footage"] = shown
    evidence = Evidence(store, tokenizer=opened)
    with pytest.raises(BadInput, match="tokenizer"):
        refuse_trained([model], evidence, "test")


def test_a_file_of_splits_is_of_its_own_drives(tmp_path, capsys):
    """At another root the drives' own splits hold, and it is said."""
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        (folder / "a").mkdir(parents=True)
    source = {"_target_": DRIVES, "root": str(own), "splits": "s.json"}
    manifest = {"config": {"data": {"source": source}}}
    assert data_source(manifest, {"root": str(own)}, tmp_path).splits == "s.json"
    assert data_source(manifest, {"root": None}, tmp_path).splits == "s.json"
    assert capsys.readouterr().out == ""
    assert data_source(manifest, {"root": str(other)}, tmp_path).splits is None
    assert "is not what s.json splits" in capsys.readouterr().out
