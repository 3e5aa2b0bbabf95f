"""Rankings: Kendall's tau, decided pairs, signals that warn, and what is written of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from worldmodel.proving_ground.dreamed import Dreamed
from worldmodel.proving_ground.ranking import kendall_tau, rank
from worldmodel.proving_ground.report import LINES, PLOT, TABLE, Races, write
from worldmodel.proving_ground.simulated import SCRIPTED


def test_tau_is_kendall_s() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        one, other = rng.normal(size=(2, 9))
        assert kendall_tau(one, other) == pytest.approx(kendalltau(one, other).statistic)
    assert kendall_tau(np.arange(4.0), np.arange(4.0)[::-1]) == -1


def races(policies: int = 6, tracks: int = 10, steps: int = 20, skill: float = 3.0) -> Races:
    """Dreams that are wrong where they are uncertain: on the odd tracks."""
    rng = np.random.default_rng(0)
    good = skill * np.arange(policies)[:, None, None] / steps
    real = good + rng.normal(size=(policies, tracks, steps)) * 0.1
    lie = np.zeros((policies, tracks, steps))
    lie[:, 1::2] = rng.normal(size=(policies, tracks // 2, 1)) * 2
    unsure = 0.1 + np.abs(lie)
    dream = Dreamed(real + lie, np.abs(lie) * 0, unsure, np.ones_like(lie), np.zeros_like(lie))
    whole = np.concatenate([real, np.full((1, tracks, steps), 1.0)])
    names = [f"policy {number}" for number in range(policies)]
    return Races(names, whole, 0 * whole, dream, 0 * lie, 10.0, (1.0, 2.0))


def test_a_signal_tells_the_tracks_where_the_ranking_holds() -> None:
    found = races().ranking(2.0)
    assert found.warnings["entropy"].value > 0.5
    assert found.warnings["entropy"].low > 0.2
    assert found.warnings["drift"].value is None  # it never changes
    calm, unsure = found.trusted["entropy"]
    assert calm == 1.0
    assert unsure < 1.0
    assert found.tau.low <= found.tau.value <= found.tau.high


def test_pairs_that_differ_clearly_are_decided() -> None:
    real = np.repeat(np.array([0.0, 5.0, 5.001])[:, None], 8, 1)
    dreamt = real.copy()
    dreamt[2] += np.tile([1.0, -1.1], 4)  # a little worse than its neighbour, and noisy
    found = rank(dreamt, real, {})
    assert found.decided == pytest.approx(2 / 3)
    assert (found.right_decided, found.right_others) == (1, 0)
    assert found.margin.value > 0.8
    near = 1e-4 * np.random.default_rng(0).normal(size=real.shape)
    clear = rank(real + near, real, {"none": np.ones_like(real)})
    assert clear.decided == 1
    assert np.isnan(clear.right_others)  # there are none
    assert clear.margin.value is clear.margin.low is None


def test_results_are_written_as_lines_a_table_and_a_plot(tmp_path: Path) -> None:
    ran = races()
    text = write(ran, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / LINES).read_text().splitlines()]
    policies, horizons = lines[:7], lines[7:]
    assert policies[-1]["policy"] == SCRIPTED
    assert policies[-1]["share_2s"] == 1.0
    assert policies[5]["share_2s"] == pytest.approx(policies[5]["real_2s"] / 20)
    assert [line["horizon_s"] for line in horizons] == [1.0, 2.0]
    assert horizons[1]["tau"]["value"] == ran.ranking(2.0).tau.value
    assert text.splitlines()[2].startswith("| scripted") or "policy 5" in text.splitlines()[2]
    assert (tmp_path / TABLE).read_text() == text + "\n"
    assert (tmp_path / PLOT).stat().st_size > 1000
