"""What benchmarks say of the figures that they took."""

import itertools

import pytest

from benchmarks import Row, in_rounds, interleaved, ratios
from benchmarks.__main__ import table
from benchmarks.growth import command as growth
from benchmarks.growth.curves import CURVES, Point


def test_rounds_take_turns_and_a_ratio_is_the_median_of_its_rounds():
    order = []
    times = {"ours": itertools.cycle([1.0, 2.0, 4.0]), "peer": itertools.cycle([2.0, 6.0, 4.0])}
    contestants = {name: lambda n=name: (order.append(n), next(times[n]))[1] for name in times}
    taken = in_rounds(contestants, 3)
    assert order == ["ours", "peer"] * 3
    assert ratios(taken["peer"], taken["ours"]) == {"ratio": 2.0, "spread": (1.0, 3.0)}
    assert interleaved(contestants, 3) == {"ours": 1.0, "peer": 2.0}
    assert "2.00 [1.00, 3.00]" in table([Row("a", "1", "2", 2.0, spread=(1.0, 3.0))])


def test_growth_names_what_grows_faster_than_linearly_and_draws_it(tmp_path, monkeypatch):
    def points_of(name: str) -> list[Point]:
        return [Point(float(value**2), float(value)) for value in CURVES[name].values]

    monkeypatch.setattr(growth, "points_of", points_of)
    said = growth.main(["--picture", str(tmp_path / "docs" / "growth.png")])
    for curve in CURVES.values():
        cells = next(line for line in said.splitlines() if curve.title in line).split(" | ")
        assert (cells[3], cells[5]) == ("2.00 (!)", "1.00")
    assert (tmp_path / "docs" / "growth.png").stat().st_size > 10_000
    monkeypatch.setattr(growth, "PICTURE", tmp_path / "all.png")
    growth.main([next(iter(CURVES))])
    assert not (tmp_path / "all.png").exists()  # some curves do not replace the picture of all
    with pytest.raises(SystemExit):
        growth.main(["depth"])
