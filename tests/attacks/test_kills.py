"""Kills at random moments, from the first import to the last save; two starts of one folder."""

import random
import signal
import subprocess
import time

import pytest
from killed_runs import RECIPES, assert_is_the_run_left_alone, logged, start

from training.disk.status import read_status

KILLS = 12  # of each recipe


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


@pytest.mark.attack
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_run_killed_at_random_moments_is_the_run_left_alone(recipe, tmp_path, data_folder):
    alone, began = tmp_path / "alone", time.monotonic()
    finish(start(alone, data_folder, *recipe))
    whole_s = time.monotonic() - began
    seed = random.SystemRandom().randrange(10**6)
    chance, runs, in_training = random.Random(seed), 0, 0
    killed = tmp_path / "killed-0"
    for _ in range(KILLS):
        process = start(killed, data_folder, *recipe)
        time.sleep(chance.uniform(0, whole_s))
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), output
        in_training += bool(logged(killed)) and process.returncode != 0
        if process.returncode == 0:
            assert_is_the_run_left_alone(killed, alone)
            runs += 1
            killed = tmp_path / f"killed-{runs}"
    finish(start(killed, data_folder, *recipe))
    assert_is_the_run_left_alone(killed, alone)
    print(f"seed {seed}: {KILLS} kills, {in_training} of them after the first row; {runs + 1} runs")


@pytest.mark.attack
@pytest.mark.timeout(900)
def test_of_two_starts_of_one_folder_at_once_one_is_refused_in_one_line(tmp_path, data_folder):
    recipe = RECIPES["gpt"]
    alone, both = tmp_path / "alone", tmp_path / "both"
    finish(start(alone, data_folder, *recipe))
    processes = [start(both, data_folder, *recipe) for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2], outputs
    (refused,) = (o for p, o in zip(processes, outputs, strict=True) if p.returncode == 2)
    winner = next(p.pid for p in processes if p.returncode == 0)
    (line,) = (line for line in refused.splitlines() if line.startswith("error"))
    assert f"{both}: process {winner} on " in line
    assert "Traceback" not in refused
    assert_is_the_run_left_alone(both, alone)
    assert read_status(both)["state"] == "finished"
