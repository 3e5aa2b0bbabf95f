"""What a model costs in all: its bytes, and where it pays for them."""

from pathlib import Path

import numpy as np
import pytest
from codec_files import make_checkpoint, make_file, refused

from training.errors import BadInput
from worldmodel.codec.__main__ import main
from worldmodel.codec.budget import PackedCost, _over_sizes
from worldmodel.codec.crossing import LONGEST, Cost, along, crossing, falling, law_over

pytest.importorskip("constriction")
TRAINED = {"step": 7777, "run": {"train_steps": 55}}


def test_the_crossing_is_where_both_cost_the_same() -> None:
    ours, theirs = Cost("ours", 1000.0, 4.0), Cost("theirs", 0.0, 6.0)
    found = crossing(ours, theirs, 100.0)
    assert found is not None
    assert found == pytest.approx((8 * 1000 / 2 / 100, LONGEST), rel=0.02)
    learning = Cost("theirs", 0.0, 6.0, slope=0.1, tokens=100.0)
    assert learning.total(100) == 75.0
    assert learning.total(1000) == pytest.approx(750 * 10**-0.1)
    later = crossing(ours, learning, 100.0)
    assert later is None or later[0] > found[0]
    returning = Cost("theirs", 0.0, 6.98, slope=0.06, tokens=153_600.0)
    first, last = crossing(Cost("ours", 50_000.0, 4.75), returning, 153_600.0) or (0.0, 0.0)
    assert 1 < first < 2
    assert 600 < last < 1000
    assert crossing(Cost("worse", 0.0, 7.0), theirs, 100.0) is None


def test_over_several_sizes_the_best_is_chosen_and_crosses_first() -> None:
    sizes, rival = [20e3, 40e3, 80e3, 160e3, 320e3], Cost("zpaq", 0.0, 6.0)
    costs = [Cost(f"{size}", size, 4.0 + (size / 20e3) ** -0.7) for size in sizes]
    found = [PackedCost(cost, 500, 1000) for cost in costs]
    told = _over_sizes([*found, PackedCost(Cost("short", 1.0, 9.0), 5, 1000)], rival, 1e5)
    assert "over 5 sizes: 4.000 +" in told[0]
    assert _over_sizes(found[:3], rival, 1e5) == []
    law = law_over(costs)
    assert law is not None
    assert law.at(60e3) == pytest.approx(4.0 + 3**-0.7, rel=1e-3)
    fit, low, high = along(law)
    for tokens in (1e5, 1e6, 1e8):
        assert low.total(tokens) <= fit.total(tokens) <= high.total(tokens)
        assert fit.total(tokens) <= min(cost.total(tokens) for cost in costs) * 1.0001
    assert fit.best(1e5) < fit.best(1e7)
    first = crossing(fit, rival, 1e5)
    singles = [found for cost in costs if (found := crossing(cost, rival, 1e5))]
    assert first is not None
    assert first[0] <= min(span[0] for span in singles) * 1.01
    assert law_over(costs[:3]) is None
    assert law_over([Cost("", size, 4.0 + size / 1e6) for size in sizes]) is None


def test_a_rival_has_the_law_of_its_parts() -> None:
    tokens = np.random.default_rng(0).integers(0, 4, (256, 4, 4)).repeat(2, 0)
    found = falling(tokens, 4)
    assert found.tokens == tokens.size
    assert found.slope > 0  # the head of its file costs less, the longer the file
    assert 1.0 < found.bits < 4.0


def test_a_few_steps_have_no_law() -> None:
    with pytest.raises(BadInput, match="7 time steps tell no power law; give 16 or more"):
        falling(np.zeros((7, 2, 2), np.int64), 4)


def test_the_table_and_the_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt, source = (
        make_checkpoint(tmp_path / "ckpt", 0, "none", **TRAINED),
        make_file(tmp_path / "t.npy", 40),
    )
    files = [str(tmp_path / f"{bits}.model") for bits in (3, 6)]
    for own, file in zip((3, 6), files, strict=True):
        main(["pack", ckpt, "-o", file, "--bits", str(own)])
    chart = tmp_path / "budget.svg"
    main(["budget", source, "-o", str(chart), "--ckpt", ",".join(files)])
    shown = capsys.readouterr().out
    for file in files:
        assert f"{Path(file).stat().st_size:,}" in shown or str(Path(file).stat().st_size) in shown
    assert "rate at 5000 min" in shown
    assert shown.count("7777") == shown.count(" 55 ") == 2  # steps and frames of both
    assert chart.read_text().count("<path") > 5
    assert "pack it first" in refused(
        capsys, "budget", source, "-o", str(tmp_path / "no.svg"), "--ckpt", ckpt
    )
