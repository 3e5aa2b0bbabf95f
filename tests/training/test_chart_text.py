"""Names of runs are drawn letter by letter, whatever they are."""

import warnings

import pytest

from training.pages.html_page import curves


@pytest.mark.parametrize("name", [r"$\foo$", r"a$", r"$x^2$", r"\$", "_hidden", "a_b^c{", "%s"])
def test_a_name_is_no_formula(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = curves(name, name, {name: [1.0, 2.0], "other": [1.0, 2.0]})
    # Both are in the legend: matplotlib's comment before each text.
    text = name.strip("_").replace("{", "")
    assert drawn.count("<!-- ") >= 4
    assert text.split("_")[0] in drawn
