"""The page that drives a dream, measured end to end in headless Chromium, and photographed.

    python -m benchmarks.drive_page --rate 10 --seconds 10 ckpt=carracing [setting=value ...]
    python -m benchmarks.drive_page --pictures docs ckpt=udacity data.root=data/udacity
    python -m benchmarks.drive_page --rate 100 ckpt=carracing export=dream.html

The last measures an exported file. It holds an arrow key and counts the steps that the page has
drawn. A rate beyond reach measures the most that page and model do together. Pictures are taken at
a desk's and a phone's width.
"""

import argparse
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright

from training.help import composed
from worldmodel.drive.__main__ import exported, opened

WIDTHS = {"desk": 1180, "phone": 390}


def measure(page: Page, browser: CDPSession, seconds: float) -> dict[str, Any]:
    """Drive for some seconds; steps per second that were drawn, and CPU seconds of all threads."""
    page.keyboard.down("ArrowLeft")
    page.click("#play")
    time.sleep(1.0)  # warm
    began, first = time.perf_counter(), _step(page)
    server, all_pages = time.process_time(), _cpu_seconds(browser)
    time.sleep(seconds)
    wall, drawn = time.perf_counter() - began, _step(page) - first
    server, all_pages = time.process_time() - server, _cpu_seconds(browser) - all_pages
    page.keyboard.up("ArrowLeft")
    said = page.inner_text("#rate")
    page.click("#play")
    late = re.search(r"late (\d+)", said)
    return {
        "steps per second": round(drawn / wall, 2),
        "CPU seconds of the server per step": round(server / max(drawn, 1), 4),
        "CPU seconds of the browser per step": round(all_pages / max(drawn, 1), 4),
        "late": late and int(late[1]),
        "the page says": said,
    }


def _step(page: Page) -> int:
    return int(page.evaluate("state.time"))


def _cpu_seconds(browser: CDPSession) -> float:
    """Of all processes of a browser."""
    processes = browser.send("SystemInfo.getProcessInfo")["processInfo"]
    return float(sum(process["cpuTime"] for process in processes))


def photograph(page: Page, out: Path) -> list[Path]:
    """The whole page at a desk's and at a phone's width."""
    paths = []
    for name, width in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 900})
        paths.append(out / f"drive_{name}.png")
        page.screenshot(path=paths[-1], full_page=True)
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drive_page")
    parser.add_argument("--rate", type=float, default=10.0, help="steps per second that are asked")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--branches", action="store_true", help="drive three dreams at once")
    parser.add_argument("--pictures", type=Path, help="folder of screenshots")
    parser.add_argument("settings", nargs="+", metavar="setting=value")
    args = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("needs chromium", file=sys.stderr)
        return 2
    cfg, server = composed("commands/drive", [f"rate={args.rate}", "port=0", *args.settings]), None
    if cfg.export:
        print(exported(cfg))
        address = Path(cfg.export).resolve().as_uri()
    else:
        server = opened(cfg)
        address = server.url
        threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        size = {"width": WIDTHS["desk"], "height": 900}
        # The page's policy forbids what Playwright's waiting does.
        page = chromium.new_page(viewport=size, bypass_csp=True)
        page.goto(address)
        page.wait_for_function("state")
        if args.branches:
            page.click("#branch")
            page.wait_for_function("state.dreams === 3")
        print(measure(page, chromium.new_browser_cdp_session(), args.seconds))
        if args.pictures:
            page.wait_for_timeout(500)
            print(*photograph(page, args.pictures), sep="\n")
        chromium.close()
    if server:
        server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
