"""A sweep trains tokenizers and probes once, measures them, and refuses what cannot be compared."""

import json
import math
import shutil
from pathlib import Path

import pytest

import worldmodel.evaluation.tokenizer_sweep.sweep as sweep
from tokenizer.load import PRETRAINED, load_tokenizer
from training.disk.status import write_status
from training.errors import BadInput
from worldmodel.evaluation.tokenizer_sweep.plan import read_plan
from worldmodel.evaluation.tokenizer_sweep.report import table
from worldmodel.evaluation.tokenizer_sweep.sweep import Entry, main, measure, reached

ROOT = Path(__file__).parents[3]
PLAN = """
tokenizer: {experiment: tokenizer_tiny, overrides: ["+debug=fast"]}
probe: {experiment: gpt_tiny, overrides: ["+debug=fast"]}
overrides: [logger=none, callbacks.media=null, trainer.accelerator=cpu, trainer.devices=1]
tokenizers:
  few: {"model.network.quantizer.levels": [4, 4]}
  many: {"model.network.quantizer.levels": [8, 5, 5, 5]}
"""


@pytest.fixture
def plan_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text=PLAN):
        (tmp_path / "test.yaml").write_text(text)
        return Path("test.yaml")

    return write


@pytest.mark.slow
def test_a_sweep_ends_with_bits_after_prediction_and_goes_on_where_it_stopped(
    plan_file, monkeypatch, capsys, data_folder
):
    trained, train = [], sweep.train

    def counted(cfg):
        trained.append(str(cfg.run))
        train(cfg)

    monkeypatch.setattr(sweep, "train", counted)
    arguments = [str(plan_file()), f"paths.data={data_folder}", "trainer.max_steps=30"]
    main(arguments)
    folder = Path("runs/tokenizer_sweep/test")
    parts = [folder / name / part for name in ("few", "many") for part in ("tokenizer", "probe")]
    assert trained == [str(part) for part in parts]
    result = json.loads((folder / "sweep.json").read_text())
    for name, vocabulary in (("few", 16), ("many", 1000)):
        entry = result["entries"][name]
        assert entry["scores"]["vocab_size"] == vocabulary
        assert (entry["probe_steps"], entry["probe_windows"]) == (30, 120)
        raw = 64 * math.log2(vocabulary)
        assert entry["scores"]["bits_per_frame"] == pytest.approx(raw)
        assert 0 < entry["predicted_bits_per_frame"] < 1.5 * raw
        manifest = (folder / name / "probe" / "config.yaml").read_text()
        assert f"tokenizer: {folder / name / 'tokenizer'}" in manifest
    assert (folder / "sweep.png").stat().st_size > 10_000
    assert "few" in capsys.readouterr().out
    main(arguments)
    assert len(trained) == 4
    write_status(parts[3], state="stopped")
    main(arguments)
    assert trained[4:] == [str(parts[3])]
    assert json.loads((folder / "sweep.json").read_text()) == result
    with pytest.raises(SystemExit) as end:
        main([*arguments, "model.network.patch=2", "trainer.max_steps=31"])
    assert end.value.code == 2


def entry(bits, lpips, nats):
    scores = {
        "bits_per_frame": bits,
        "coded_bits_per_frame": 0.9 * bits,
        "lpips": lpips,
        "psnr": 20.0,
        "tokens_per_frame": 64.0,
        "usage": 0.5,
    }
    made = Entry(scores, nats, 10, 40)
    bits_after = made.predicted_bits_per_frame
    return {**vars(made), "predicted_bits_per_frame": bits_after}


def test_the_table_says_which_tokenizer_another_one_beats():
    entries = {
        "raw-best": entry(300, 0.03, 64 * math.log(2) / 64 * 4),
        "predictable": entry(600, 0.02, 64 * math.log(2) / 64 * 2),
        "sharp": entry(700, 0.01, 64 * math.log(2) / 64 * 8),
    }
    assert entries["predictable"]["predicted_bits_per_frame"] == pytest.approx(128)
    lines = table(entries).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["predictable", "raw-best", "sharp"]
    assert ["<" in line for line in lines[1:4]] == [False, True, False]


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "tokenizer_sweep").glob("*.yaml")))
def test_every_shipped_sweep_composes(file):
    plan = read_plan(file, ["seed=3"])
    runs = set()
    for name in plan.entries:
        cfg = plan.tokenizer_config(name)
        probe = plan.probe_config(name, Path(cfg.run))
        assert probe.data.tokenizer == cfg.run
        assert (cfg.seed, probe.seed, probe.max_passes) == (3, 3, None)
        runs |= {cfg.run, probe.run}
    assert len(runs) == 2 * len(plan.entries)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("tokenizer:", "tokeniser:"), "tokeniser: no such key"),
        (("experiment: gpt_tiny", "recipe: gpt_tiny"), "give {experiment: NAME"),
        (("  few", "  # few"), "at least two names"),
        (("{\"model.network.quantizer.levels\": [4, 4]}", "4"), "tokenizers.few: 4; give settings"),
        (("overrides: [logger", "overrides: {logger"), "is no YAML"),
    ],
)  # fmt: skip
def test_unusable_plans_are_refused(plan_file, change, words):
    with pytest.raises(BadInput) as error:
        read_plan(plan_file(PLAN.replace(*change, 1)))
    assert words in str(error.value)


def test_settings_are_judged_before_anything_is_trained(plan_file, capsys, tmp_path):
    bad = PLAN.replace('model.network.quantizer.levels": [8, 5, 5, 5]', 'quantizer.lvls": [8]')
    with pytest.raises(SystemExit) as end:
        main([str(plan_file(bad))])
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert "test, tokenizer of many: quantizer.lvls" in shown
    with pytest.raises(SystemExit):
        main(["nowhere.yaml"])
    assert "nowhere.yaml: no such file" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["test.yaml"]


def test_a_run_of_another_length_is_refused(plan_file, tmp_path):
    cfg = read_plan(plan_file()).tokenizer_config("few")
    assert reached(cfg, "val/loss") is None
    write_status(Path(cfg.run), state="finished", max_steps=int(cfg.trainer.max_steps))
    (Path(cfg.run) / "metrics.jsonl").write_text('{"step": 5, "val/loss": 1.0}\n')
    assert reached(cfg, "val/loss") is None  # the validation after the last step is missing
    write_status(Path(cfg.run), max_steps=7)
    with pytest.raises(BadInput, match="is a run of 7 steps, the file asks for 20"):
        reached(cfg, "val/loss")


def test_scores_are_kept_and_read_for_the_same_weights_alone(plan_file, monkeypatch, tmp_path):
    cfg = read_plan(plan_file()).tokenizer_config("few")
    cfg.run = str(tmp_path / "run")
    shutil.copytree(PRETRAINED / "carracing", cfg.run)
    kept = {"hash": load_tokenizer(cfg.run).hash, "lpips": 0.5}
    (tmp_path / "run" / "scores.json").write_text(json.dumps(kept))
    assert measure(cfg) == kept
    (tmp_path / "run" / "scores.json").write_text(json.dumps({**kept, "hash": "another"}))
    monkeypatch.setattr("drives.sources.DriveSource.open", lambda self: [])
    with pytest.raises(BadInput, match="no drive is in the val split"):
        measure(cfg)
