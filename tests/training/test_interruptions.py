"""Killed anywhere and started again: the run that was left alone, bit for bit."""

import random
import signal
import time

import pytest
from killed_runs import RECIPES, STEPS, WORLD, assert_is_the_run_left_alone, start, whole_rows

from training.checkpoints.folder import newest_first, read_manifest
from training.disk.status import STOPPED, read_status


def interrupt(process, run, step, number) -> tuple[int, str]:
    """Send a signal once the run has logged `step`; its exit code and what it printed."""
    deadline, began = time.monotonic() + 120, time.time()
    # By their time: a resumed run replaces the rows after its checkpoint.
    while not any(row["step"] >= step and row["time"] >= began for row in whole_rows(run)):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    process.send_signal(number)  # a second one does no harm
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(recipe, id=name, marks=pytest.mark.attack if i else pytest.mark.slow)
        for i, (name, recipe) in enumerate(RECIPES.items())
    ],
)
def test_a_run_killed_four_times_is_the_run_left_alone(recipe, tmp_path, data_folder):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    process = start(alone, data_folder, *recipe)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    at = sorted(random.Random(seed).sample(range(5, STEPS - 8), 4))
    kinds = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR2]
    for step, number in zip(at, kinds, strict=True):
        code, output = interrupt(start(killed, data_folder, *recipe), killed, step, number)
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
            assert read_status(killed)["state"] == "running"
        else:
            assert code == STOPPED, output
            status = read_status(killed)
            assert (status["state"], status["exit_code"]) == ("stopped", STOPPED)
            saved = newest_first(killed)[0]
            assert read_manifest(saved)["step"] == status["step"] >= step
    process = start(killed, data_folder, *recipe)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert read_status(killed)["attempts"] == 5
    assert_is_the_run_left_alone(killed, alone)


@pytest.mark.slow
def test_ctrl_c_saves_and_a_finished_run_stays_finished(tmp_path, data_folder):
    run = tmp_path / "run"
    code, output = interrupt(start(run, data_folder, *WORLD), run, 6, signal.SIGINT)
    assert code == STOPPED
    assert "stopped by SIGINT after step" in output
    assert "Traceback" not in output
    step = read_status(run)["step"]
    process = start(run, data_folder, *WORLD)
    output, _ = process.communicate(timeout=300)
    assert f"resuming from {run}/checkpoints/step-{step:07d}" in output
    before = whole_rows(run)
    process = start(run, data_folder, *WORLD)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert whole_rows(run) == before
