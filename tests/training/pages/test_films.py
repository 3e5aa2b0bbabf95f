"""Films: their sheets hold the frames, and one slider moves all of them."""

import numpy as np
import pytest
from browser import DESKTOP, PHONE, opened, overflow
from PIL import Image

from training.pages import films
from training.pages.films import write_films
from training.pages.html_page import write_page

PAGE = """{% extends "base.html" %}
{% import "films.html" as films %}{% import "parts.html" as parts %}
{% block style %}{{ films.style() }}{% endblock %}
{% block body %}<h1>films</h1>{{ parts.table(["name", "score"] + ["a long heading"] * 9, rows) }}
{% for set in sets %}{{ films.viewer(set, folder) }}{% endfor %}{{ films.scrubber() }}{% endblock %}
{% block script %}{{ films.script() }}{% endblock %}
"""


def counting(clips: int, time: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Frames of one grey each: 20 per clip, 3 per frame."""
    grey = 20 * np.arange(clips)[:, None] + 3 * np.arange(time)
    frames = np.broadcast_to(grey[..., None, None, None], (clips, time, height, width, 3))
    return np.ascontiguousarray(frames, np.uint8)


def test_a_sheet_holds_the_frames_row_by_row(tmp_path):
    panels = {"camera": counting(2, 5), "heat": counting(2, 5, 4, 4)}
    film = write_films(tmp_path / "films", panels, ["a", "b"], 2, 10.0)
    assert (film["columns"], film["rows"], film["num_frames"]) == (3, 2, 5)
    for panel in range(2):
        sheet = np.asarray(Image.open(tmp_path / film["clips"][1]["sheets"][panel]).convert("RGB"))
        assert sheet.shape == (128, 192, 3)
        assert (sheet[:64, 64:128] == 23).all()
        assert (sheet[64:, 64:128] == 32).all()


def test_of_many_clips_the_best_and_the_worst_are_kept(tmp_path):
    values = [float(v) for v in np.random.default_rng(0).permutation(20)]
    names = [f"clip {i}" for i in range(20)]
    film = write_films(tmp_path / "films", {"a": counting(20, 1)}, names, 1, 5, ("LPIPS", values))
    titles = [clip["title"] for clip in film["clips"]]
    assert len(titles) == films.LADDER[0][0]
    assert titles[0] == f"clip {values.index(0)}, LPIPS 0"
    assert titles[-1] == f"clip {values.index(19)}, LPIPS 19"


def test_sheets_keep_to_their_size(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (3, 4, 64, 64, 3), np.uint8)
    sizes = {}
    for limit in (1_000_000, 30_000):
        monkeypatch.setattr(films, "MAX_BYTES", limit)
        write_films(tmp_path / str(limit), {"noise": noise}, list("abc"), 1, 10)
        sizes[limit] = sum(f.stat().st_size for f in (tmp_path / str(limit)).iterdir())
    assert sizes[30_000] <= 30_000 < sizes[1_000_000] <= 1_000_000


def test_sheets_that_no_webp_can_hold_are_shrunk(tmp_path, monkeypatch):
    monkeypatch.setattr(films, "MAX_SIDE", 100)
    film = write_films(tmp_path / "films", {"a": counting(1, 5)}, "a", 1, 10)
    assert Image.open(tmp_path / film["clips"][0]["sheets"][0]).size == (96, 64)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_one_slider_moves_all_films_and_tables_sort(tmp_path, width):
    sets = [
        write_films(tmp_path / "a", {"one": counting(2, 5), "two": counting(2, 5)}, "pq", 2, 10),
        write_films(tmp_path / "b", {"short": counting(1, 3)}, "r", 1, 10),
    ]
    rows = [["b", 10.0, *"ccccccccc"], ["c", None, *"ccccccccc"], ["a", 9.0, *"ccccccccc"]]
    (tmp_path / "page.template").write_text(PAGE)
    file = tmp_path / "page.html"
    write_page(file, tmp_path / "page.template", rows=rows, sets=sets, folder=tmp_path)
    with opened(file, width) as page:
        assert overflow(page) == 0
        places = ".sheet", "all => all.map(sheet => sheet.style.backgroundPosition)"
        page.locator("input[type=range]").fill("4")  # row 1, column 1 of 3; the short one is at 2
        assert page.eval_on_selector_all(*places) == ["50% 100%"] * 4 + ["0% 100%"]
        assert page.locator("output").inner_text() == "0.30 s ahead"
        page.locator("input[type=range]").fill("0")
        assert set(page.eval_on_selector_all(*places)) == {"0% 0%"}
        assert page.locator("output").inner_text() == "prompt, frame 1"
        page.locator(".scrubber button").click()
        page.wait_for_function("document.querySelector('input[type=range]').value > 1")
        page.locator(".scrubber button").click()
        page.locator("select").first.select_option("0")
        assert page.locator(".films >> visible=true").count() == 2
        shown = page.locator(".films").first.locator(".sheet").first
        assert shown.is_visible()
        assert shown.bounding_box()["width"] > 100
        column = "tbody tr td:first-child", "cells => cells.map(cell => cell.textContent)"
        page.locator("th button").nth(1).click()
        assert page.eval_on_selector_all(*column) == ["a", "b", "c"]
        page.locator("th button").nth(1).click()
        assert page.eval_on_selector_all(*column) == ["b", "a", "c"]  # what has no value stays last
        page.locator("th button").nth(0).click()
        assert page.eval_on_selector_all(*column) == ["a", "b", "c"]
