"""The embedded drives: Gymnasium's CarRacing-v3, driven by `drives.carracing.driver`.

They need no download, depend on the seed alone, and have exact actions:

    steering        [-1, 1], +1 = full lock to the RIGHT (the convention of CarRacing)
    throttle, brake [0, 1], share of the full pedal
    speed_mps       mean speed of the hull
    yaw_rate_rad_s  change of heading per second, positive = turning LEFT

Row t is in force between frame t and frame t+1; controls and speed are means over the
physics steps of that interval. On request more columns follow, of what came of the step:

    reward          sum of CarRacing's: 1000 / tiles for each new tile of the road, less 0.1 per
                    physics step
    off_road        [0, 1], share of the wheels off the road at frame t+1
    done            1 where all wheels have been off the road for `LOST_S` at frame t+1
"""

import json
import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import Float, UInt8
from tqdm import tqdm

from drives.actions.units import DONE, OFF_ROAD, REWARD
from drives.carracing.config import PHYSICS_FPS, CarRacingConfig
from drives.carracing.driver import ScriptedDriver, draw_plan, draw_style
from drives.writing import write_drive
from training.disk.hashing import file_sha256
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.records import read_json
from training.errors import BadInput
from training.loading.pools import process_pool, usable_cores

# Frames that one process simulates in the seconds that starting another takes.
WORTH_A_PROCESS = 1500
VERSION = 1  # raise it with every change of a drive; old drives are then refused
ACTION_NAMES = ("steering", "throttle", "brake", "speed_mps", "yaw_rate_rad_s")
OUTCOMES_OF = {"rewards": (REWARD,), "off_road": (OFF_ROAD, DONE)}  # by what asks for them
LOST_S = 1.0

log = logging.getLogger(__name__)


def make_drive(
    config: CarRacingConfig, index: int
) -> tuple[
    UInt8[np.ndarray, "frame height width 3"], Float[np.ndarray, "frame action"], dict[str, Any]
]:
    """Simulate drive number `index`: frames, actions, and the content of `drive.json`.

    A pure function: the same arguments give the same bytes, in any process.
    """
    # Imported here because drives on disk need neither pygame nor Box2D.
    from drives.carracing.simulator import ENV_ACTION_PER_UNIT, Simulator

    split = list(config.drives.values())[index]
    rng = np.random.default_rng([config.seed, index])
    env_seed = config.seed * 1_000_000 + index  # another index is another track
    backwards, start = bool(rng.integers(2)), float(rng.uniform())
    warm_up_s = float(rng.integers(2, 5))
    style = draw_style(rng)
    plan = draw_plan(rng, style, warm_up_s + config.seconds)
    simulator = Simulator(env_seed, backwards, start)
    driver = ScriptedDriver(
        simulator.line, style, plan, rng, float(simulator.start), 1 / PHYSICS_FPS
    )
    simulator.advance(driver, round(warm_up_s * PHYSICS_FPS))
    frames = np.empty((config.num_frames, config.size, config.size, 3), np.uint8)
    actions = np.empty((config.num_frames, len(ACTION_NAMES)), np.float32)
    outcomes = np.empty((config.num_frames, 3), np.float32)
    num_off_road = 0
    for row in range(config.num_frames):
        frames[row] = simulator.frame(config.size)
        num_off_road += simulator.is_off_road
        actions[row] = simulator.advance(driver, round(PHYSICS_FPS / config.fps))
        lost = simulator.off_road_s >= LOST_S - 1e-9
        outcomes[row] = simulator.earned, simulator.off_road, lost
    simulator.close()
    meta = {
        "fps": config.fps,
        "source": "Gymnasium CarRacing-v3, driven by tokenizer.scripted_driver",
        "licence": "MIT (Gymnasium); the frames carry no further rights",
        "split": split,
        "action_conventions": "steering +1 = full lock right; yaw_rate_rad_s > 0 = turning left",
        **_recipe(config),
        "env_seed": env_seed,
        "backwards": backwards,
        "env_action_per_unit": dict(zip(ACTION_NAMES, ENV_ACTION_PER_UNIT, strict=False)),
        "driver": asdict(style),
        "manoeuvres": [
            {**asdict(m), "start_s": m.start_s - warm_up_s, "end_s": m.end_s - warm_up_s}
            for m in plan
        ],
        "num_frames_off_road": num_off_road,
    }
    asked = [config.rewards, config.off_road, config.off_road]
    return frames, np.concatenate([actions, outcomes[:, asked]], axis=1), meta


def columns_of(config: CarRacingConfig) -> tuple[str, ...]:
    """Columns of the drives of a config."""
    asked = [names for switch, names in OUTCOMES_OF.items() if getattr(config, switch)]
    return (*ACTION_NAMES, *(name for names in asked for name in names))


def make_drives(root: Path, config: CarRacingConfig, num_workers: int | None = None) -> None:
    """Make the missing drives of `config` below `root`.

    Finished drives survive an interruption. `drives.json` lists the sha256 of every file
    and is written last. Drives that differ from it are named and made again.

    Args:
        num_workers: processes; 0 or 1: this process; None: one per usable core, of those that have
            enough to do.

    Raises:
        BadInput: `root` holds drives of another config or version, or of someone else.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        sweep_leftovers(root)
        hashes = _read_hashes(root, config)
        _remove_altered(root, hashes)
        missing = [
            index
            for index, name in enumerate(config.drives)
            if not (root / name / "drive.json").exists()
        ]
        if hashes and not missing:
            return
        progress = tqdm(
            desc=f"{root}: drives",
            initial=len(config.drives) - len(missing),
            total=len(config.drives),
            mininterval=1.0,
        )
        with progress:
            for _ in _write_all(root, config, missing, num_workers):
                progress.update()
        listed = {**_recipe(config), "drives": {name: _hash(root / name) for name in config.drives}}
        with written_whole(root / "drives.json") as partial:
            partial.write_text(json.dumps(listed, indent=1) + "\n")


def _write_all(
    root: Path, config: CarRacingConfig, indices: list[int], num_workers: int | None
) -> Iterator[None]:
    """Make drives, yielding once for each that is finished."""
    if num_workers is None:
        num_workers = min(len(usable_cores()), len(indices) * config.num_frames // WORTH_A_PROCESS)
    num_workers = min(num_workers, len(indices))
    if num_workers <= 1:
        for index in indices:
            _write(root, config, index)
            yield
        return
    with process_pool(num_workers) as pool:
        futures = [pool.submit(_write, root, config, index) for index in indices]
        for future in as_completed(futures):
            yield future.result()


def _write(root: Path, config: CarRacingConfig, index: int) -> None:
    frames, actions, meta = make_drive(config, index)
    write_drive(root / list(config.drives)[index], frames, actions, columns_of(config), meta)


def _recipe(config: CarRacingConfig) -> dict[str, Any]:
    return {"version": VERSION, "config": config.recipe}


def _read_hashes(root: Path, config: CarRacingConfig) -> dict[str, dict[str, str]]:
    """File hashes of every drive from `drives.json`; empty where the file is not written yet.

    Raises:
        BadInput: drives of another config or version, or drives that are not ours.
    """
    index = root / "drives.json"
    folders = sorted(path.parent for path in root.glob("[!.]*/drive.json"))
    for folder in folders:
        if folder.name not in config.drives:
            raise BadInput(
                f"{folder}: is none of the {len(config.drives)} embedded drives of this config; "
                f"move it elsewhere, or delete {root} to make the embedded drives anew"
            )
    # An interrupted first run has no drives.json yet, but each drive.json holds the recipe.
    for path in [index] if index.exists() else [folder / "drive.json" for folder in folders]:
        found = _read_json(path)
        for key, value in _recipe(config).items():
            if found.get(key) != value:
                raise BadInput(
                    f"{path}: made with {key} {found.get(key)} instead of {value}; choose another "
                    f"folder, or delete {root} to make the drives anew"
                )
    return _read_json(index)["drives"] if index.exists() else {}


def _remove_altered(root: Path, hashes: dict[str, dict[str, str]]) -> None:
    """Remove the drives whose files differ from `drives.json`, and print their names."""
    for name, expected in hashes.items():
        found = _hash(root / name)
        if found != expected:
            wrong = sorted(f for f in expected | found if expected.get(f) != found.get(f))
            log.warning(
                "%s: %s altered or missing; making the drive again", root / name, ", ".join(wrong)
            )
            shutil.rmtree(root / name, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except BadInput as error:
        useless = path if path.name == "drives.json" else path.parent
        raise BadInput(f"{path}: is not JSON ({error}); delete {useless}, run again") from error
    return content if isinstance(content, dict) else {}


def _hash(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.glob("*") if path.is_file())
    return {path.name: file_sha256(path) for path in files}
