"""Differences are paired over clips, and refused where the clips are not the same."""

import numpy as np

from worldmodel.evaluation.compare.command import labels_of, table_of_rows
from worldmodel.evaluation.compare.pairs import Evaluation, rows_of

DRIVES = [f"d{i // 4}" for i in range(40)]


def evaluation(label, values, sha="same", version="h"):
    estimate = {"value": float(np.mean(values)), "low": None, "high": None}
    card = {"hash": version, "clips": {"sha256": sha}, "scores": {"model": {"bits": estimate}}}
    clips = {"drives": DRIVES, "values": {"model": {"bits": list(values)}}}
    return Evaluation(label, {"cards": {"c": card}}, {"c": clips})


def test_a_small_difference_among_clips_of_unequal_hardness_is_found():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 40)
    better = evaluation("b", hard - 0.5 + rng.normal(0, 0.05, 40))
    same = evaluation("c", hard + rng.normal(0, 0.05, 40))
    (row,) = rows_of([evaluation("a", hard), better, same])
    assert row.differences[0] is None
    assert abs(row.differences[1].value + 0.5) < 0.05
    assert [row.significant(i) for i in range(3)] == [False, True, False]
    columns, ((*_, last),) = table_of_rows([row], ["a", "b", "c"])
    assert columns[-1] == "c - a"
    assert "*" not in last


def test_other_clips_and_other_versions_are_not_paired():
    values = np.ones(40)
    first = evaluation("a", values)
    others = [evaluation("b", values, sha="other"), evaluation("c", values, version="other")]
    (row,) = rows_of([first, *others])
    assert row.differences == [None, None, None]
    assert row.why == ["", "other clips", "another version of the card"]


def test_every_checkpoint_has_a_label_of_its_own():
    runs = ["runs/a", "other/a", "runs/a/checkpoints/step-20"]
    assert labels_of(runs) == ["a", "a-2", "a-step-20"]
