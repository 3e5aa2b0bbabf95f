"""Headless Chromium for tests of pages."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PHONE, DESKTOP = 390, 1280
HEIGHT = 844


@contextmanager
def opened(file: Path, width: int) -> Iterator[Any]:
    """The page of a file; a script that fails, or anything fetched, fails the test."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    faults: list[str] = []
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": width, "height": HEIGHT})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda r: r.url.startswith("http") and faults.append(r.url))
        page.goto(file.resolve().as_uri())
        yield page
        chromium.close()
    assert not faults


def overflow(page: Any) -> int:
    """Pixels by which the page is wider than the window."""
    root = "document.documentElement"
    return int(page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))


def resize(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": HEIGHT})


def until(page: Any, condition: str) -> None:
    """Wait; the page's policy forbids what Playwright's own waiting does."""
    end = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never: {condition}"
        page.wait_for_timeout(20)
