"""The page in headless Chromium: by keyboard, touch and pad; on a phone and on a desk."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, overflow, until
from tiny_world import TOLD, write_world

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import make_drives
from training.help import composed
from worldmodel.drive.__main__ import opened
from worldmodel.drive.server import DriveServer

pytestmark = pytest.mark.slow


@contextmanager
def driven(server: DriveServer, width: int = DESKTOP, **options: Any) -> Iterator[Any]:
    """The page of a server; a script that fails, or anything fetched from elsewhere, fails."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    faults: list[str] = []
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        context = chromium.new_context(viewport={"width": width, "height": 844}, **options)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: "Content Security" in m.text and faults.append(m.text))
        page.on("request", lambda r: r.url.startswith(server.url) or faults.append(r.url))
        page.goto(server.url)
        until(page, "Boolean(state)")
        yield page
        chromium.close()
    server.shutdown()
    server.server_close()
    assert not faults


@pytest.fixture
def shipped(tmp_path: Path) -> DriveServer:
    """The server of the shipped model, on two short drives of its own."""
    config = CarRacingConfig(num_train=1, num_val=0, num_test=1, seconds=4.0)
    make_drives(tmp_path / "drives", config, num_workers=0)
    words = ["ckpt=carracing", f"data.root={tmp_path}/drives", f"paths.data={tmp_path}/data"]
    return opened(composed("commands/drive", [*words, "port=0", f"out={tmp_path}/saved"]))


def test_someone_drives_the_shipped_model_by_keyboard(shipped: DriveServer) -> None:
    with driven(shipped, reduced_motion="reduce") as page:
        assert "Reduced motion" in page.inner_text("#notes")
        assert page.evaluate("state.time") == 0  # it stands until someone drives
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "play"
        page.keyboard.down("ArrowLeft")
        page.keyboard.press("Enter")
        until(page, "state.time >= 3")
        page.keyboard.up("ArrowLeft")
        page.evaluate("play(false)")
        low, high = page.evaluate("[about.columns[0].low, about.columns[0].high]")
        steering = page.evaluate("state.actions[0][0]")  # positive to the right
        assert steering < low + 0.3 * (high - low)
        until(page, "!playing")
        page.evaluate("queue")
        steps = page.evaluate("state.time")
        page.locator("body").press(".")
        until(page, f"state.time === {steps + 1}")
        page.locator("body").press("r")
        until(page, "state.time === 0")
        page.locator("body").press("b")
        until(page, "state.dreams === 3")
        page.locator("body").press(".")
        until(page, "state.time === 1")
        assert page.locator("#dreams article").count() == 3
        turned = page.evaluate("state.actions.map(row => row[0])")
        assert turned[0] < turned[1] < turned[2]
        painted = "[...document.querySelectorAll('.dream canvas')].map(c => c.toDataURL())"
        assert len(set(page.evaluate(painted))) == 3
        page.locator("body").press("3")
        until(page, "state.dreams === 1")
        page.check("#real")
        until(page, "document.querySelector('.real canvas')?.width === 64")
        page.select_option("#form", "mp4")
        page.click("#save")
        page.wait_for_selector("#saved a")
        with page.expect_download() as download:
            page.click("#saved a")
        assert download.value.suggested_filename == "dream-000.mp4"


def test_a_phone_drives_by_touch_and_nothing_overflows(tmp_path: Path) -> None:
    ckpt, root = write_world(tmp_path)
    words = [f"ckpt={ckpt}", f"data.root={root}", "port=0", f"out={tmp_path}/saved", "rate=20"]
    server = opened(composed("commands/drive", words))
    with driven(server, PHONE, has_touch=True) as page:
        assert overflow(page) == 0
        page.tap("[data-turn='1']")  # before a step: a tap counts for one
        page.tap("#one")
        until(page, "state.time === 1")
        assert page.evaluate("state.actions[0][0]") < -0.1
        assert page.evaluate("about.frames") is False
        assert "no tokenizer" in page.inner_text("#notes")
        page.tap("#branch")
        until(page, "state.dreams === 3")
        assert overflow(page) == 0
        # A slow model is told, and no step is left out.
        slowly = "await new Promise(done => setTimeout(done, 120)); return quick(...values)"
        page.evaluate(f"void (window.quick = ask, ask = async (...values) => {{ {slowly} }})")
        page.tap("#play")
        until(page, "!document.getElementById('slow').hidden")
        assert "No step is left out" in page.inner_text("#slow")
        assert page.evaluate("late") > 0
        page.tap("#play")
        # Paused and resumed within a step, it asks for no more than before.
        page.select_option("#speed", "5")
        page.evaluate("queue")
        page.evaluate("window.asked = 0, window.since = performance.now()")
        page.evaluate("void (ask = (...values) => (asked += 1, quick(...values)))")
        page.evaluate("play(true), play(false), play(true), play(false), play(true)")
        page.wait_for_timeout(2000)
        assert 0 < page.evaluate("1000 * asked / (performance.now() - since)") < 7
        page.evaluate("play(false)")
        page.evaluate("queue")
        # A second page is told, and takes over.
        other = page.context.new_page()
        other.goto(server.url)
        other.wait_for_selector("#error button")
        assert "another page drives" in other.inner_text("#error")
        steps = page.evaluate("state.time")
        other.click("#error button")
        until(other, f"state?.time === {steps} && document.getElementById('error').hidden")
        page.bring_to_front()
        page.tap("#one")
        page.wait_for_selector("#error button")
        other.close()
        # Every control has a name.
        named = "e => e.ariaLabel || e.textContent.trim() || e.labels?.length"
        controls = page.query_selector_all("button, input, select")
        assert len(controls) > 15
        assert all(control.evaluate(named) for control in controls)


def test_a_gamepad_drives_and_text_prompts(tmp_path: Path) -> None:
    ckpt, root = write_world(tmp_path, "gpt", **TOLD)
    words = [f"ckpt={ckpt}", f"data.root={root}", "port=0", f"out={tmp_path}/saved"]
    server = opened(composed("commands/drive", words))
    with driven(server) as page:
        buttons = "Array.from({ length: 8 }, (_, i) => ({ value: +(i === 7) }))"
        pad = f"{{ axes: [-0.9, 0], buttons: {buttons} }}"
        page.evaluate(f"void (navigator.getGamepads = () => [null, {pad}])")
        for step in (1, 2, 3):
            page.click("#one")
            until(page, f"state.time === {step}")
        steering, throttle = page.evaluate("state.actions[0].slice(0, 2)")
        assert steering < -0.5
        assert throttle > 0.2
        page.evaluate("void (navigator.getGamepads = () => [])")
        assert page.is_visible("#saying")
        seen = []
        for text in ("rain", "snow"):
            page.fill("#text", text)  # keys that are typed do not drive
            page.press("#text", "r")
            page.press("#text", "Enter")
            page.evaluate("queue")
            page.click("#one")
            until(page, "state.time === 4")
            seen.append((server.session.dream.captions[-1], page.evaluate("state.bits")))
            page.click("#back")  # the same numbers again
            until(page, "state.time === 0")
            for step in (1, 2, 3):
                page.click("#one")
                until(page, f"state.time === {step}")
        assert [captions for captions, _ in seen] == [["rainr"], ["snowr"]]
        assert seen[0][1] != seen[1][1]
