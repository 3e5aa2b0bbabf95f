"""What is no number is null in JSON, and a dash for people."""

import json
import math
from typing import Any

import pytest

from training.disk.plain_json import finite, number, to_json
from training.pages.html_page import curves, environment, shown


def refuse(word: str) -> None:
    raise ValueError(word)


def test_every_reader_takes_it() -> None:
    values = {"psnr": math.inf, "by_step": [1.0, math.nan], "n": 3, "pair": (1, -math.inf)}
    read = json.loads(to_json(values), parse_constant=refuse)
    assert read == finite(values)
    assert read == {"psnr": None, "by_step": [1.0, None], "n": 3, "pair": [1, None]}
    assert math.isnan(number(read["psnr"]))
    assert number(0.5) == 0.5


def test_a_page_shows_a_dash() -> None:
    parts: Any = environment().get_template("parts.html").module
    table = parts.table(["", "error"], [["left", None], ["right", 0.25], ["straight", math.nan]])
    assert table.count("<td>-</td>") == 2
    assert shown(None, "+.2f") == "-"
    assert "<svg" in curves("psnr", "s", {"a": [1.0, None, 2.0]})


def test_a_run_that_diverged_has_rows_that_every_reader_takes(tmp_path) -> None:
    from training.disk.status import read_status, write_status
    from training.watch.loggers import JsonlLogger, StatusLogger

    write_status(tmp_path, state="running")
    for logger in (JsonlLogger(tmp_path / "metrics.jsonl"), StatusLogger(tmp_path)):
        logger.log_metrics({"val/loss": math.nan, "val/psnr": 3.0}, step=1)
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (row["val/loss"], row["val/psnr"]) == (None, 3.0)
    json.loads((tmp_path / "status.json").read_text(), parse_constant=refuse)
    assert read_status(tmp_path)["metrics"] == {"val/loss": None, "val/psnr": 3.0}


@pytest.mark.parametrize("value", [object(), {1, 2}])
def test_what_is_no_figure_at_all_is_refused(value) -> None:
    with pytest.raises(TypeError):
        to_json({"value": value})
