"""The embedded drives: the same for a seed, true to the simulation, and varied."""

import json
import logging
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from drives.carracing import drives as carracing
from drives.carracing.config import CarRacingConfig
from drives.carracing.driver import Centreline, ScriptedDriver, draw_plan, draw_style
from drives.carracing.drives import ACTION_NAMES, columns_of, make_drive, make_drives
from drives.carracing.simulator import Simulator
from drives.folder import open_drives
from drives.sources import DriveSource
from training.errors import BadInput

TINY = CarRacingConfig(num_train=2, num_val=1, num_test=1, seconds=1.0, size=32)
STEERING, THROTTLE, BRAKE, SPEED, YAW_RATE = range(5)


@pytest.fixture(scope="module")
def drive() -> tuple[np.ndarray, np.ndarray, dict]:
    return make_drive(CarRacingConfig(seconds=20.0), 2)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    make_drives(tmp_path / "drives", TINY, num_workers=1)
    return tmp_path / "drives"


def contents(root: Path) -> dict[str, bytes]:
    files = (p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


def test_same_arguments_give_the_same_bytes_and_another_seed_others() -> None:
    frames, actions, meta = make_drive(TINY, 1)
    again = make_drive(TINY, 1)
    assert frames.tobytes() == again[0].tobytes()
    assert actions.tobytes() == again[1].tobytes()
    assert meta == again[2]
    other = make_drive(replace(TINY, seed=1), 1)
    assert other[2]["driver"] != meta["driver"]
    assert not np.array_equal(other[0], frames)


def test_shapes_follow_the_config() -> None:
    frames, actions, meta = make_drive(replace(TINY, fps=25.0, size=48), 0)
    assert frames.shape == (25, 48, 48, 3)
    assert frames.dtype == np.uint8
    assert actions.shape == (25, len(ACTION_NAMES))
    assert actions.dtype == np.float32
    assert meta["fps"] == 25.0


def test_every_drive_has_another_track() -> None:
    seeds = [make_drive(TINY, index)[2]["env_seed"] for index in range(4)]
    assert len(set(seeds)) == 4
    first, second = (Simulator(seed).line.points for seed in seeds[:2])
    assert first.shape != second.shape or not np.allclose(first, second)


def test_row_t_is_what_happens_between_frame_t_and_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poses = []
    frame = Simulator.frame

    def spy(self: Simulator, size: int) -> np.ndarray:
        poses.append((*self.position, self.heading_rad))
        return frame(self, size)

    monkeypatch.setattr(Simulator, "frame", spy)
    config = CarRacingConfig(seconds=8.0, size=16)
    _, actions, _ = make_drive(config, 3)
    moved = np.diff(np.array(poses), axis=0)
    np.testing.assert_allclose(moved[:, 2] * config.fps, actions[:-1, YAW_RATE], atol=1e-5)
    distance = np.hypot(moved[:, 0], moved[:, 1])
    np.testing.assert_allclose(distance * config.fps, actions[:-1, SPEED], atol=0.3)
    assert np.ptp(actions[:, SPEED]) > 1.0


@pytest.mark.parametrize(("steering", "sign"), [(0.5, -1), (-0.5, 1)])
def test_positive_steering_turns_right_and_right_is_negative_yaw(
    steering: float, sign: int
) -> None:
    simulator = Simulator(env_seed=0)
    for _ in range(50):
        simulator.drive(0.0, 0.3, 0.0)
    x, y = simulator.position
    heading = simulator.heading_rad
    for _ in range(25):
        simulator.drive(steering, 0.0, 0.0)
    assert sign * (simulator.heading_rad - heading) > 0.1
    dx, dy = simulator.position[0] - x, simulator.position[1] - y
    left = -dx * math.cos(heading) - dy * math.sin(heading)
    assert sign * left > 0.1


def test_pedals_move_and_stop_the_car() -> None:
    simulator = Simulator(env_seed=0)
    for _ in range(100):
        simulator.drive(0.0, 0.5, 0.0)
    fast = simulator.speed_mps
    assert fast > 10.0
    for _ in range(100):
        simulator.drive(0.0, 0.0, 1.0)
    assert simulator.speed_mps < 0.5


def test_the_picture_turns_against_the_car() -> None:
    simulator = Simulator(env_seed=0)
    before = simulator.frame(64).astype(int)
    simulator.car.hull.angle += 0.3  # to the left: the road ahead moves to the right
    after = simulator.frame(64).astype(int)

    def road(frame: np.ndarray) -> float:
        grey = np.ptp(frame[8:24], axis=2) < 20
        return float(np.nonzero(grey)[1].mean())

    assert road(after) > road(before) + 3


def test_car_is_near_the_bottom_centre_and_no_instruments_are_shown(drive: tuple) -> None:
    frames = drive[0].astype(int)
    red = (frames[..., 0] > 150) & (frames[..., 1] < 60)
    assert red[:, 49:60, 29:35].any(axis=(1, 2)).all()
    assert (frames.sum(axis=-1) > 60)[:, -3:].all()  # CarRacing's bar is black


def test_backwards_is_the_same_track_the_other_way_round() -> None:
    forwards, backwards = Simulator(5), Simulator(5, backwards=True)
    np.testing.assert_array_equal(forwards.line.points, backwards.line.points[::-1])
    turned = forwards.line.tangents[0] @ backwards.line.tangents[-2]
    assert turned == pytest.approx(-1.0, abs=0.2)


def test_driver_stays_on_the_road_all_round_the_track() -> None:
    rng = np.random.default_rng(0)
    simulator = Simulator(env_seed=1)
    style = replace(draw_style(rng), cruise_mps=22.0, unsteadiness=0.0)
    driver = ScriptedDriver(simulator.line, style, (), rng, 0.0, 1 / 50)
    visited = set()
    for _ in range(90 * 10):
        simulator.advance(driver, 5)
        visited.add(int(driver.index))
        assert not simulator.is_off_road
    assert len(visited) > 0.9 * len(simulator.line.points)


def test_manoeuvres_happen() -> None:
    """Stops stand still, and leaving the road does, and it comes back."""
    config = CarRacingConfig(seconds=30.0, size=16)
    stood, left_road, num_frames = 0, 0, 0
    for index in (0, 3):
        _, actions, meta = make_drive(config, index)
        for stop in (m for m in meta["manoeuvres"] if m["kind"] == "stop"):
            last = int(stop["end_s"] * config.fps) - 3
            if 0 < last < len(actions):
                assert actions[last, SPEED] < 0.5
                stood += 1
        left_road += meta["num_frames_off_road"]
        num_frames += len(actions)
        assert actions[:, SPEED].mean() > 2.0
    assert stood > 0
    assert 0 < left_road < 0.3 * num_frames


def test_plans_are_in_order_without_overlap_and_hold_every_kind() -> None:
    rng = np.random.default_rng(0)
    plan = draw_plan(rng, draw_style(rng), 600.0)
    for before, after in pairwise(plan):
        assert before.end_s < after.start_s
    assert {m.kind for m in plan} == {"speed", "lane", "swerve", "off_road", "stop"}


def test_speed_limits_allow_braking_before_every_bend() -> None:
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    radius = 60 + 25 * np.cos(3 * angles)
    line = Centreline(np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1))
    style = draw_style(np.random.default_rng(0))
    limits = line.speed_limits(style)
    needed = (limits**2 - np.roll(limits, -1) ** 2) / (2 * line.spacing_m)
    assert needed.max() <= style.decel_mps2 * 1.001
    assert (limits**2 * np.abs(line.curvature_per_m)).max() <= style.bend_mps2 * 1.001


def test_written_drives_open_with_their_splits_and_bounds(made: Path) -> None:
    drives = open_drives(made, ACTION_NAMES)
    assert {d.id: d.split for d in drives} == TINY.drives
    frames, actions, meta = make_drive(TINY, 0)
    first = next(d for d in drives if d.id == "train-0000")
    np.testing.assert_allclose(first.actions, actions, atol=1e-6)
    decoded = np.stack(list(first.frames()))
    assert np.abs(decoded.astype(int) - frames).mean() < 8  # H.264 is lossy
    assert first.meta["config"] == meta["config"]


def test_second_call_changes_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("made again")

    before = contents(made)
    monkeypatch.setattr(carracing, "make_drive", fail)
    make_drives(made, TINY)
    assert contents(made) == before


def assert_same_drives(one: Path, other: Path) -> None:
    for drive, same in zip(open_drives(one), open_drives(other), strict=True):
        assert np.array_equal(list(drive.frames()), list(same.frames()))
        assert np.array_equal(drive.actions, same.actions)
        assert drive.meta | {"video_sha256": ""} == same.meta | {"video_sha256": ""}


@pytest.mark.slow
def test_number_of_processes_does_not_matter(made: Path, tmp_path: Path) -> None:
    make_drives(tmp_path / "other", TINY, num_workers=2)
    assert_same_drives(made, tmp_path / "other")


def test_a_process_is_started_where_it_has_enough_to_do(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pool(num_workers: int) -> ThreadPoolExecutor:
        asked.append(num_workers)
        return ThreadPoolExecutor(1)

    monkeypatch.setattr(carracing, "process_pool", pool)
    monkeypatch.setattr(carracing, "usable_cores", lambda: {0, 1, 2})
    make_drives(tmp_path / "few", TINY)
    assert not asked
    for worth, num_workers in ((20, 2), (1, 3)):  # 40 frames in four drives
        monkeypatch.setattr(carracing, "WORTH_A_PROCESS", worth)
        make_drives(tmp_path / f"{worth}", TINY)
        assert asked.pop() == num_workers
        assert_same_drives(made, tmp_path / f"{worth}")


def test_altered_and_missing_drives_are_named_and_made_again(
    made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(made)
    (made / "train-0001" / "actions.csv").write_text("steering\n0\n")
    (made / "val-0000" / "drive.json").unlink()
    with caplog.at_level(logging.WARNING):
        make_drives(made, TINY, num_workers=1)
    assert len(caplog.records) == 2
    assert "train-0001" in caplog.text
    assert "actions.csv" in caplog.text
    assert "val-0000" in caplog.text
    assert contents(made) == before


def test_an_interrupted_run_keeps_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, asked = tmp_path / "drives", []
    make = carracing.make_drive

    def interrupted(config: CarRacingConfig, index: int) -> tuple:
        asked.append(index)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return make(config, index)

    monkeypatch.setattr(carracing, "make_drive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_drives(root, TINY, num_workers=1)
    assert not (root / "drives.json").exists()
    make_drives(root, TINY, num_workers=1)
    assert asked == [0, 1, 2, 2, 3]
    assert list(json.loads((root / "drives.json").read_text())["drives"]) == list(TINY.drives)


def test_a_second_caller_waits_for_the_first(tmp_path: Path) -> None:
    config = replace(TINY, num_train=1, num_val=0, num_test=0)
    caller = threading.Thread(target=make_drives, args=(tmp_path, config, 1))
    with FileLock(tmp_path / ".lock"):
        caller.start()
        caller.join(timeout=1.0)
        assert caller.is_alive()
        assert not list(tmp_path.glob("*train*"))
    caller.join(timeout=60.0)
    assert (tmp_path / "drives.json").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_drives_of_another_config_are_refused(made: Path, finished: bool) -> None:
    if not finished:
        (made / "drives.json").unlink()
    before = contents(made)
    with pytest.raises(BadInput, match=r"seconds.*choose another folder"):
        make_drives(made, replace(TINY, seconds=2.0))
    assert contents(made) == before


def test_strange_drives_and_broken_lists_are_refused(made: Path) -> None:
    (made / "mine").mkdir()
    (made / "mine" / "drive.json").write_text('{"fps": 10}')
    with pytest.raises(BadInput, match=r"mine: is none of the 4"):
        make_drives(made, TINY)
    (made / "mine" / "drive.json").unlink()
    (made / "drives.json").write_text("{")
    with pytest.raises(BadInput, match=r"drives.json: is not JSON"):
        make_drives(made, TINY)


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"num_train": 0}, {"fps": 7.0}, {"fps": 0.0}, {"seconds": 0.1}, {"size": 8}],
)
def test_impossible_configs_are_refused(wrong: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        CarRacingConfig(**wrong)


def test_rewards_are_carracings_own_and_change_nothing_else() -> None:
    frames, actions, meta = make_drive(replace(TINY, seconds=4.0), 0)
    same, rewarded, told = make_drive(replace(TINY, seconds=4.0, rewards=True), 0)
    np.testing.assert_array_equal(frames, same)
    np.testing.assert_array_equal(actions, rewarded[:, :-1])
    assert told["config"].pop("rewards")
    assert told == meta
    simulator = Simulator(meta["env_seed"])
    tiles = (rewarded[:, -1] + 0.1 * 5) * len(simulator.track) / 1000
    np.testing.assert_allclose(tiles, tiles.round(), atol=1e-3)
    assert 3 < tiles.sum() < 60


def test_the_road_is_left_where_the_plan_says_so() -> None:
    asked = replace(TINY, num_train=4, seconds=20.0, size=16, off_road=True)
    driven = [make_drive(asked, index) for index in range(4)]
    off, done = (np.stack([rows[:, column] for _, rows, _ in driven]) for column in (-2, -1))
    assert set(np.unique(off)) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert 0.02 < off.mean() < 0.5
    assert 0 < done.mean() < (off == 1).mean()
    assert (off[done == 1] == 1).all()  # and nine rows before, at ten per second
    first = np.argwhere(done == 1)[0]
    assert (off[first[0], max(0, first[1] - 9) : first[1] + 1] == 1).all()
    for (_, rows, meta), one in zip(driven, off, strict=True):
        assert rows.shape[1] == len(columns_of(asked)) == len(ACTION_NAMES) + 2
        # `num_frames_off_road` counts the frame before each row.
        assert abs(meta["num_frames_off_road"] - (one == 1).sum()) <= 1


def test_a_store_keeps_rewards_and_a_model_does_not_read_them(tmp_path: Path) -> None:
    config = replace(TINY, seconds=1.0, size=16, rewards=True, off_road=True)
    source = DriveSource(cache=str(tmp_path), carracing=config)
    drives = source.open()
    assert source.action_names(drives) == source.planned()[1] == ACTION_NAMES
    assert source.columns(drives) == (*ACTION_NAMES, "reward", "off_road", "done")
    assert DriveSource(cache=str(tmp_path), carracing=replace(config, rewards=False)).folder != (
        source.folder
    )
    chosen = DriveSource(cache=str(tmp_path), carracing=config, actions=["steering", "reward"])
    assert chosen.planned()[1] == ("steering",)
    without = DriveSource(cache=str(tmp_path), carracing=TINY, actions=["steering", "reward"])
    with pytest.raises(BadInput, match="have no column 'reward'"):
        without.planned()
