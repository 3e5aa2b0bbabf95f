"""Policies on the road: one start for all, whatever the number of processes."""

from dataclasses import replace

import numpy as np
import pytest

from worldmodel.proving_ground.policies import RoadFollower
from worldmodel.proving_ground.simulated import Course, on_road


@pytest.mark.slow
def test_all_policies_begin_alike_and_processes_change_nothing() -> None:
    policies = [RoadFollower("good"), RoadFollower("no wheel", gain=0.0)]
    courses = [Course(track, 4, 10.0, 5, "carracing") for track in (3, 4)]
    alone, beside = on_road(courses, policies, 0, 1), on_road(courses, policies, 0, 2)
    for one, other in zip(alone, beside, strict=True):
        assert np.array_equal(one.rewards, other.rewards)
        assert np.array_equal(one.frames, other.frames)
        assert one.rewards.shape == (3, 4)  # the scripted driver is the last
        assert one.frames.shape[0] == one.tokens.shape[0] == len(one.rows) + 1 == 5
    assert not np.array_equal(alone[0].frames, alone[1].frames)  # another track
    (swapped,) = on_road(courses[:1], policies[::-1], 0, 1)
    assert np.array_equal(swapped.frames, alone[0].frames)
    assert np.array_equal(swapped.rewards[:2], alone[0].rewards[1::-1])
    (later,) = on_road([replace(courses[0], past=3)], policies[:1], 0, 1)
    assert np.array_equal(later.frames, alone[0].frames[-3:])
