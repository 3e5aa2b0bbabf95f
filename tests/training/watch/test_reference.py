"""A run beside healthy ones: what is normal, what is not, and what cannot be read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks.seeds as seeds
from training.errors import BadInput
from training.help import composed
from training.watch.reference import (
    REFERENCES,
    Reference,
    band_of,
    compare,
    examine,
    open_reference,
    read_curves,
)

ROOT = Path(__file__).parents[3]


def write_run(folder: Path, psnr: list[float], **status: object) -> Path:
    """A run folder with a PSNR every 10 steps."""
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": 10 * i, "val/psnr": v}) for i, v in enumerate(psnr)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text("name: some_recipe\n")
    (folder / "status.json").write_text(json.dumps({"state": "finished", **status}))
    return folder


@pytest.fixture
def healthy(tmp_path):
    return [
        write_run(tmp_path / "a", [10, 20, 30, 31]),
        write_run(tmp_path / "b", [12, 24, 32]),
        write_run(tmp_path / "c", [11, 21, 31]),
    ]


def test_a_band_spans_the_steps_that_all_runs_have(healthy, tmp_path):
    band = band_of(healthy)["val/psnr"]
    assert (band.steps, band.low, band.median, band.high) == (
        [0, 10, 20], [10, 20, 30], [11, 21, 31], [12, 24, 32],
    )  # fmt: skip
    reference = Reference("some_recipe", 3, {"settings": []}, {"val/psnr": band})
    reference.write(tmp_path / "there/some_recipe.json")
    assert open_reference(tmp_path / "there/some_recipe.json") == reference


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        ({0: 11, 10: 22, 20: 31}, "normal"),
        ({5: 17, 20: 31, 1000: 0}, "normal"),  # between the steps, and beyond the last
        ({0: 11, 10: 22, 20: 20}, "below, 33% of the steps outside"),
        ({0: 30, 20: 31}, "normal, 50% of the steps outside"),
        ({20: 60}, "above, 100% of the steps outside"),
        ({50: 60}, "not in this run"),
    ],
)
def test_a_run_is_judged_where_the_band_is(healthy, curve, verdict):
    (row,) = compare({"val/psnr": curve}, band_of(healthy))
    assert row[-1] == verdict


def test_of_steps_that_were_trained_twice_the_last_counts(tmp_path):
    run = write_run(tmp_path / "a", [1, 2])
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 10, "val/psnr": 3, "val/loss": 4}) + "\n")
    assert read_curves(run) == {"val/psnr": {0: 1, 10: 3}}


@pytest.mark.parametrize("file", sorted(REFERENCES.glob("*.json")), ids=lambda file: file.stem)
def test_shipped_references_are_of_recipes_and_reach_their_last_step(file):
    reference = open_reference(file)
    assert (ROOT / f"configs/experiment/{reference.recipe}.yaml").is_file()
    settings = [f"+experiment={reference.recipe}", *reference.made["settings"]]
    last = max(max(band.steps) for band in reference.bands.values())
    assert composed("train", settings).trainer.max_steps == last


def test_examining_prints_findings_and_draws(healthy, tmp_path, capsys):
    run, reference = healthy[0], tmp_path / "r.json"
    Reference("some_recipe", 3, {}, band_of(healthy)).write(reference)
    found = {"step": 7, "name": "dead_codes", "says": "most", "treated": {"treatment": "restart"}}
    (run / "doctor.jsonl").write_text(json.dumps(found) + "\n")
    examine(run, reference, str(tmp_path / "pictures/p.png"))
    shown = capsys.readouterr().out
    assert "3 healthy runs" in shown
    assert "step 7: dead_codes, most; done: restart" in shown
    assert (tmp_path / "pictures/p.png").stat().st_size > 1000
    examine(run)
    shown = capsys.readouterr().out
    assert "no reference for this recipe" in shown
    assert "val/psnr  30    31" in shown
    assert (run / "curves.png").exists()


def test_what_cannot_be_read_is_named(healthy, tmp_path, capsys):
    with pytest.raises(BadInput, match=r"nowhere: has no metrics\.jsonl"):
        examine(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"none\.json: no such file"):
        examine(healthy[0], tmp_path / "none.json")
    with pytest.raises(BadInput, match=r"metrics\.jsonl: is no reference"):
        examine(healthy[0], healthy[0] / "metrics.jsonl")
    (healthy[1] / "metrics.jsonl").write_text('{"step": 1, "val/other": 1}\n')
    with pytest.raises(BadInput, match="no figures yet"):
        examine(healthy[1])
    (healthy[2] / "config.yaml").unlink()
    with pytest.raises(BadInput, match=r"no config\.yaml"):
        examine(healthy[2])
    with (healthy[0] / "metrics.jsonl").open("a") as file:
        file.write("{\n")
    examine(healthy[0])
    assert "metrics.jsonl, line 5: is no row" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_exits_with_2_on_bad_input(tmp_path):
    command = [sys.executable, "-m", "training.watch.reference", f"run={tmp_path}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "has no metrics.jsonl" in result.stderr


def test_the_spread_over_seeds_is_told_with_the_runs_that_had_findings(healthy, tmp_path):
    run = write_run(tmp_path / "d", [0, 7], findings=["flat_output"])
    assert "| PSNR (dB) | 19 | 12 | 7 | 31 |" in seeds.spread([healthy[0], run])
    told = seeds.collapsed([*healthy, run])
    assert told == "1 of 4 runs with findings of the doctor. d: flat_output"
