"""The report of an evaluation, as people open it: on a phone and on a desk, from disk."""

import numpy as np
import pytest
from browser import DESKTOP, PHONE, opened, overflow, resize

from training.pages.films import write_films
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.report.page import write_report

NAMES = [f"drive-{clip % 3}@{12 * clip}" for clip in range(6)]
FRAMES, PROMPT, FPS = 9, 3, 10.0


def frames(seed: int, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels: np.ndarray = rng.integers(0, 255, (len(NAMES), FRAMES, side, side, 3), np.uint8)
    return pixels


def rollout(folder) -> dict:
    drives = [name.split("@")[0] for name in NAMES]
    result = Result({"num": 6, "num_drives": 3, "sha256": 64 * "a", "ids": NAMES}, drives, NAMES)
    rng = np.random.default_rng(0)
    for system, level in (("autoregressive", 20), ("floor_copy_last", 18)):
        for name in ("psnr", "ssim", "lpips"):
            result.curve(system, name, level + rng.standard_normal((6, FRAMES - PROMPT)))
    result.floors.append("floor_copy_last")
    panels = {c: frames(i) for i, c in enumerate(("camera", "tokenizer", "future 1", "future 2"))}
    score = ("LPIPS", result.values["autoregressive"]["lpips"])
    films = write_films(folder / "films", panels, NAMES, PROMPT, FPS, score)
    counts = {"autoregressive": 0, "floor_copy_last": 4}
    result.details = {
        **{"num_prompt_frames": PROMPT, "num_frames": FRAMES - PROMPT, "fps": FPS},
        **{"films": films, "num_identical": counts, "seconds_per_frame": 0.1},
    }
    return result.plain()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """All that a report may show, and a card that it knows nothing of."""
    folder = tmp_path_factory.mktemp("report")
    directions = {d: {"motion_px_per_frame": 1.0, "standard_error": None} for d in "ab"}
    directions = dict.fromkeys(("left", "straight", "right"), directions["a"])
    steered = {f"steer {d}": frames(7 + i) for i, d in enumerate(directions)}
    steering = {
        **directions,
        "calibration": {"column": "steering", "correlation_on_real_frames": None},
        "films": write_films(folder / "steered", steered, NAMES, PROMPT, FPS),
    }
    bits = {"value": 2.5, "low": 2.25, "high": 2.75}
    cards = {
        "teacher_forced": {
            **{"regime": "fully teacher-forced", "floors": ["<uniform>"]},
            "scores": {"world model": {"bits": bits}, "<uniform>": {"bits": {**bits, "low": None}}},
            **{"bits_by_step": [3.0, 2.0], "bits_by_cell": [[1.0, 2.0], [3.0, 4.0]]},
            "bits_by_drive": {"b": 2.0, "a": 3.0},
            "calibration": [{"confidence": c, "accuracy": c} for c in (0.25, 0.75)],
        },
        "rollout": rollout(folder),
        "control": {"steering": steering},
        "mine": {"answer": 42.5, "why": "because", "parts": {"x": 1}, "lines": ["| a row |"]},
        "distance": {
            "warnings": {"resize": "frames are scaled to 212"},
            "by_num_clips": {"fvd": {"num_clips": [2, 4], "value": [9.0, 7.0], "limit": 5.0}},
        },
        "empty": {"skipped": "no drives at hand"},
    }
    found = {
        **{"checkpoint": "runs/x" + 80 * "y", "step": 3, "split": "test", "hardware": "a CPU"},
        "cards": {name: {"version": "1", "hash": "ab12", **card} for name, card in cards.items()},
    }
    run = {"git": "c0de", "hardware": "a GPU", "data_hash": 64 * "d"}
    manifest = {"run": run, "files": {"model.safetensors": 64 * "f"}}
    return write_report(folder, found, manifest, {"split": "test"})


def test_the_report_says_everything_and_escapes_it(report):
    page = report.read_text()
    for words in (
        *("2.5 [2.25, 2.75]", "floor: &lt;uniform&gt;", "42.5", "because", "no drives at hand"),
        *(
            "judged on a CPU",
            "trained on a GPU",
            "code c0de",
            64 * "f",
            64 * "d",
            "best, drive",
            "worst, ",
        ),
        *("| a row |", "<b>resize</b>: frames are scaled to 212.", "Frechet, fvd"),
        *("How do imagined frames compare", "4 of 36", "PSNR (dB)", "sha256 aaaaaaaaaaaa"),
    ):
        assert words in page, words
    assert "<uniform>" not in page
    assert len(page) < 20e6


def test_a_person_clicks_through_the_report(report):
    with opened(report, PHONE) as page:
        assert overflow(page) == 0
        slider = page.locator("input[type=range]")
        assert slider.count() == 1
        assert slider.get_attribute("max") == str(FRAMES - 1)
        assert slider.is_visible()  # below every part of the page
        places = "all => all.map(sheet => sheet.style.backgroundPosition)"
        slider.fill("5")  # of three columns and rows
        moved = page.eval_on_selector_all(".sheet", places)
        assert len(moved) == 6 * (4 + 3)
        assert set(moved) == {"100% 50%"}
        best = page.locator(".choice + .films")
        for choice, films, panels in zip(
            page.locator("select").all(), best.all(), (4, 3), strict=True
        ):
            choice.select_option("0")
            assert films.locator(".sheet").count() == panels
            assert films.is_visible()
        assert page.locator(".films:not([hidden]) .sheet").count() == 7  # one clip of each
        for details in page.locator("details").all():
            details.locator("summary").click()
        assert overflow(page) == 0
        page.locator("summary", has_text="By drive").scroll_into_view_if_needed()
        table = page.locator("details table").first
        table.locator("button").first.click()
        assert table.locator("td:first-child").all_inner_texts() == ["a", "b"]
        table.locator("button").last.click()
        assert table.locator("td:first-child").all_inner_texts() == ["b", "a"]
        resize(page, DESKTOP)
        assert overflow(page) == 0
        assert slider.is_visible()
