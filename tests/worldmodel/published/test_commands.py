"""Published world models from the command line: converted, judged, timed and rolled out."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch
from published_files import cosmos_files, genie_files, gpt2m_files, vavim_files
from vqgan_by_name import ByName

from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.writing import write_drive
from worldmodel.load import load_world_model
from worldmodel.published import convert


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """`command("worldmodel.convert", ...)`: what `python -m` does; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DASHCAST_DATA", str(tmp_path / "data"))

    def run(module, *arguments):
        arguments = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        main = importlib.import_module(module).main
        main(arguments) if module == "worldmodel.evaluation.kinds_table" else main()
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def converted(shared, tmp_path_factory):
    """Folders of converted models by name."""
    out = {}
    for name, make in (
        ("commavq_gpt", gpt2m_files),
        ("genie", lambda folder: genie_files(shared, folder)),
        ("cosmos_ar", lambda folder: cosmos_files(shared, folder)),
        ("vam_mupgpt2", lambda folder: vavim_files(shared, folder)),
    ):
        folder = tmp_path_factory.mktemp(name)
        convert(name, make(folder), folder / "out")
        out[name] = folder / "out"
    return out


def random_store(model, root, splits=("train", "test")):
    """A store of the model's own tokens, as an importer would name them."""
    writer = TokenStoreWriter(root, model.spec, ())
    rng, steps = np.random.default_rng(0), model.network.config.context_steps + 3
    for split in splits:
        tokens = rng.integers(0, model.spec.vocab_size, (steps, *model.spec.grid[1:]))
        writer.write(f"a-{split}", split, tokens, np.zeros((steps, 0), np.float32))
    return root


FEW = (
    "card=[teacher_forced,rollout]",
    "cards.teacher_forced.version=few",
    "cards.teacher_forced.num_windows=2",
    "cards.rollout.version=few",
    "batch_size=2",
)
TIMED = ("num_frames=2", "repeats=1")


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("cosmos_ar", "vam_mupgpt2")]


@pytest.mark.parametrize("name", ["genie", *SLOW])
def test_every_published_model_is_judged_timed_and_rolled_out(name, converted, command, tmp_path):
    ckpt = converted[name]
    model = load_world_model(ckpt)
    store = random_store(model, tmp_path / "store")
    command("eval", f"ckpt={ckpt}", f"data.root={store}", f"out={tmp_path}/eval", "batch_size=2")
    cards = json.loads((tmp_path / "eval/metrics.json").read_text())["cards"]
    bits = {k: v["bits_per_token"]["value"] for k, v in cards["teacher_forced"]["scores"].items()}
    assert 0 < bits["world model"] < 2 * bits["uniform"]
    assert {"unigram", "position", "copy_last_frame", "previous_token"} <= set(bits)
    assert "skipped" in cards["rollout"]
    assert f"published as {name}" in (tmp_path / "eval/report.html").read_text()
    said = command(
        "worldmodel.evaluation.decoding_bench", f"ckpt={ckpt}", f"data.root={store}", *TIMED
    )
    assert "frames/s" in said
    assert ("raster, window=roll is left out: window=roll" in said) == (name != "genie")
    said = command(
        "worldmodel.evaluation.kinds_table",
        ckpt,
        "--root",
        store,
        "--num-windows=2",
        "--num-frames=1",
    )
    assert said.startswith("| run |")
    out = ("num_clips=2", "num_futures=2", "prompt_steps=1", f"out={tmp_path}/futures")
    said = command("worldmodel.rollout", f"ckpt={ckpt}", f"data.root={store}", "horizon_s=1", *out)
    assert "give tokenizer=FOLDER" in said
    futures = TokenStore(tmp_path / "futures")
    assert len(futures.drives("test")) == 4
    real = TokenStore(store).drives("test")[0].tokens
    for drive in futures.drives("test"):
        begins = futures.manifest["drives"][drive.id]["meta"]["from"]["step"]
        assert np.array_equal(drive.tokens[:1], real[begins : begins + 1])
    assert futures.spec == model.spec


def test_gpt2m_reads_commavqs_own_files(converted, command, shared, tmp_path):
    ckpt, tokens = converted["commavq_gpt"], shared / "data/commavq/tokens.npy"
    alone = [
        o.replace("[teacher_forced,rollout]", "teacher_forced")
        for o in FEW
        if "cards.rollout" not in o
    ]
    given = ("data=commavq", f"data.root={tokens}")
    command("eval", f"ckpt={ckpt}", f"data.root={tokens}", f"out={tmp_path}/eval", *alone)
    scores = json.loads((tmp_path / "eval/metrics.json").read_text())["cards"]["teacher_forced"]
    bits = {k: v["bits_per_token"]["value"] for k, v in scores["scores"].items()}
    assert bits["world model"] == pytest.approx(10, abs=0.2)
    assert bits["unigram"] == pytest.approx(9.7, abs=0.5)
    out = ("num_clips=1", "prompt_steps=19", "horizon_s=0.05", f"out={tmp_path}/futures")
    said = command("worldmodel.rollout", f"ckpt={ckpt}", *given, *out)
    assert "1 x 1 futures of 1 steps after 19 real ones" in said
    (drive,) = TokenStore(tmp_path / "futures").drives("test")
    assert drive.tokens.shape == (20, 8, 16)


@pytest.mark.parametrize("levels", [4, 5])
def test_vavim_is_judged_on_frames_with_llamagens_tokenizer(levels, shared, command, tmp_path):
    """With 4 resolutions its 2x3 tokens are 16x24 pixels, in which LPIPS sees nothing."""
    height, width = 2**levels, 3 * 2 ** (levels - 1)
    network = ByName("llamagen", 8, (*[1] * (levels - 1), 2))
    frames = torch.zeros(1, 3, height, width)
    with torch.no_grad():
        network.frames(network.looked_up(network.tokens(network.latents(frames))))
    torch.save({"model": network.weights}, tmp_path / "vq_ds16.pt")
    given = (
        f"ckpt={tmp_path}/vq_ds16.pt",
        f"options.image_size=[{height},{width}]",
        f"out={tmp_path}/vq",
    )
    command("tokenizer.convert", "tokenizer=llamagen", *given)
    convert("vam_mupgpt2", vavim_files(shared, tmp_path), tmp_path / "vavim", grid=[2, 3])
    for split in ("train", "test"):
        pixels = np.random.default_rng(0).integers(0, 256, (8, height, width, 3), np.uint8)
        meta = {"fps": 2, "split": split, "source": "noise", "licence": "CC0"}
        write_drive(tmp_path / "drives" / split, pixels, np.zeros((8, 1)), ["steering"], meta)
    few = (*FEW, *(f"cards.rollout.{s}" for s in ("num_clips=1", "num_futures=1", "horizon_s=1")))
    given = f"data.root={tmp_path}/drives", f"tokenizer={tmp_path}/vq", f"out={tmp_path}/eval"
    command("eval", f"ckpt={tmp_path}/vavim", *given, *(few if levels == 5 else ()))
    card = json.loads((tmp_path / "eval/metrics.json").read_text())["cards"]["rollout"]
    if levels == 4:
        assert card["skipped"] == "frames of 16x24 pixels are too small for LPIPS"
    else:
        assert card["scores"]["ceiling_tokenizer"]["psnr"]["value"] > 0


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("eval", [], "is a published model, which names no data; give data.root=PATH"),
        ("eval", ["data.root=nowhere"], "data.root=nowhere: no such folder or file"),
        ("eval", ["data=commavq"], "root=None: give"),
        ("worldmodel.rollout", ["out=x", "data.root=drives"], "drives are no tokens yet; give"),
        ("worldmodel.rollout", ["out=x", "horizon_s=nan"], "horizon_s=nan: give a number"),
        ("worldmodel.rollout", ["out=x", "num_clips=0"], "num_clips=0: give a whole number from 1"),
        ("worldmodel.rollout", ["out=drives"], "out=drives: exists already"),
        ("worldmodel.rollout", ["out=''"], "out='': is empty"),
        ("worldmodel.evaluation.decoding_bench", [], "give data.root=PATH"),
    ],
)
def test_what_is_not_said_is_asked_for(
    module, arguments, words, converted, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drives").mkdir()
    monkeypatch.setattr(sys, "argv", [module, f"ckpt={converted['genie']}", *arguments])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module).main()
    shown = capsys.readouterr().err
    assert end.value.code == 2
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert words in shown
    assert [path.name for path in tmp_path.iterdir()] == ["drives"]
