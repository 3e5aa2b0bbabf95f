"""Every template of the tree can be read, and every page has the same frame."""

from pathlib import Path

import pytest

from training.pages.html_page import environment

ROOT = Path(__file__).parents[3]
PACKAGES = ("drives", "tokenizer", "worldmodel", "training")
SHARED = ROOT / "training" / "pages"
SERVED = ROOT / "worldmodel/drive/page.html"  # no report: a page that a server drives
FOUND = [f for p in PACKAGES for f in (ROOT / p).rglob("*.html") if f.parent != SHARED]
PAGES = [f for f in FOUND if f != SERVED]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_a_page_extends_the_frame_of_all(file):
    environment(file.parent).get_template(file.name)
    text = file.read_text()
    assert text.startswith('{% extends "base.html" %}')
    for written_by_hand in ("<table", "<style", "<script", "<html", "| safe"):
        assert written_by_hand not in text


def test_no_module_writes_pages_by_hand():
    own = [f for p in PACKAGES for f in (ROOT / p).rglob("*.py")]
    found = [f for f in own if any(tag in f.read_text() for tag in ("<html", "<table", "<td"))]
    assert not found
