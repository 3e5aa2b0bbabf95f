"""Policies that see pictures: the road in a picture, and what each fault does to the commands."""

from dataclasses import replace

import pytest
import torch

from drives.carracing.simulator import CAR_AT, VIEW_M
from worldmodel.proving_ground.policies import (
    FEATURES,
    MOST_THROTTLE,
    DriverView,
    LinearPolicy,
    RoadFollower,
    graded,
)
from worldmodel.proving_ground.road import NEAREST_M, read_road

SIZE = 64
GRASS, ROAD = torch.tensor([102, 204, 102]), torch.tensor([105, 105, 105])


def picture(right_m: float = 0.0, bend_per_m: float = 0.0, until_m: float = 99.0) -> torch.Tensor:
    """A road of 13.3 m that begins `right_m` to the right, bends, and ends somewhere."""
    ahead = (SIZE * (1 - CAR_AT) - torch.arange(SIZE) - 0.5)[:, None] * VIEW_M / SIZE
    right = ((torch.arange(SIZE) + 0.5) / SIZE - 0.5)[None] * VIEW_M
    middle = right_m + bend_per_m * ahead.clamp(min=0) ** 2 / 2
    on_road = ((right - middle).abs() < 6.65) & (ahead < until_m)
    return torch.where(on_road[None], ROAD[:, None, None], GRASS[:, None, None]).to(torch.uint8)


def view(*pictures: torch.Tensor, speed: float = 10.0) -> DriverView:
    frames = torch.stack(pictures)
    tokens = torch.zeros(len(frames), 2, 8, 8, dtype=torch.long)
    return DriverView(frames, tokens, torch.full((len(frames),), speed))


def test_the_middle_of_the_road_is_read_from_the_picture() -> None:
    shown = [picture(), picture(right_m=4.0), picture(bend_per_m=-0.02), picture(until_m=12.0)]
    road = read_road(torch.stack([*shown, picture(right_m=99.0)]))
    near, far = torch.full((5,), 8.0), torch.full((5,), 20.0)
    assert road.at(near)[:3].tolist() == pytest.approx([0.0, 4.0, -0.64], abs=0.5)
    assert road.at(far)[:3].tolist() == pytest.approx([0.0, 4.0, -4.0], abs=0.7)
    assert road.seen_m.tolist()[:3] == pytest.approx([36.0] * 3, abs=2.0)
    assert road.seen_m[3] == pytest.approx(12.0, abs=1.5)
    assert road.seen_m[4] == 0
    assert road.ahead_m[0] == NEAREST_M


def test_a_road_aside_is_found_again() -> None:
    lost = read_road(torch.stack([picture(right_m=14.0), picture(right_m=-14.0)]))
    assert lost.at(torch.tensor([20.0, 20.0])).tolist() == pytest.approx([14.0, -14.0], abs=1.5)
    assert (lost.at(torch.tensor([6.0, 6.0])) * torch.tensor([1.0, -1.0]) > 6.0).all()


def test_a_follower_steers_to_the_road_and_slows_before_bends() -> None:
    driver = RoadFollower("good").driver(4, 0, "cpu")
    bent, ending = picture(bend_per_m=0.05), picture(until_m=6.0)
    wheel, throttle, brake = driver(view(picture(), picture(right_m=3.0), bent, ending)).unbind(1)
    assert abs(wheel[0]) < 0.05
    assert wheel[1] > 0.1
    assert wheel[2] > 0.1
    assert throttle[0] > 0
    assert throttle.max() <= MOST_THROTTLE
    assert brake.tolist()[:2] == [0, 0]
    assert brake[3] > 0
    fast = RoadFollower("fast", cruise_mps=30.0, bend_mps2=float("inf")).driver(1, 0, "cpu")
    good = RoadFollower("good").driver(1, 0, "cpu")
    assert good(view(bent, speed=20.0))[0, 2] > fast(view(bent, speed=20.0))[0, 2]


def test_every_fault_changes_what_is_commanded() -> None:
    shown = view(picture(right_m=2.0), speed=12.0)
    right = RoadFollower("good").driver(1, 0, "cpu")(shown)[0]

    def wheel(**fault: float) -> float:
        return float(replace(RoadFollower("x"), **fault).driver(1, 0, "cpu")(shown)[0, 0])

    assert wheel(gain=0.5) == pytest.approx(float(right[0]) / 2)
    assert wheel(bias=0.25) == pytest.approx(float(right[0]) + 0.25)
    assert wheel(noise=0.5) != pytest.approx(float(right[0]))
    assert wheel(lookahead_s=1.5) < float(right[0])
    late = RoadFollower("late", delay=2).driver(1, 0, "cpu")
    told = [late(shown)[0].tolist() for _ in range(3)]
    assert told[:2] == [[0, 0, 0]] * 2
    assert told[2] == pytest.approx(right.tolist())
    slow = RoadFollower("slow", cruise_mps=8.0).driver(1, 0, "cpu")(shown)[0]
    assert slow[2] > 0 == right[2]
    assert len({one.name for one in graded()}) == 10


def test_cars_of_a_batch_are_driven_as_each_alone() -> None:
    pictures = [picture(right_m=r, bend_per_m=b) for r, b in ((0, 0.01), (3, 0), (-5, -0.02))]
    together = view(*pictures)
    weights = torch.randn(1, FEATURES, generator=torch.Generator().manual_seed(0))
    for policy in (RoadFollower("good"), LinearPolicy("linear", weights)):
        all_ = policy.driver(3, 0, "cpu")(together)
        for number, one in enumerate(pictures):
            alone = policy.driver(1, 0, "cpu")(view(one))[0]
            assert torch.allclose(all_[number], alone, atol=1e-5)
            part = policy.driver(1, 0, "cpu")(together.part(slice(number, number + 1)))[0]
            assert torch.allclose(part, alone, atol=1e-5)


def test_candidates_drive_side_by_side_with_their_own_weights() -> None:
    weights = torch.zeros(2, FEATURES)
    weights[0, 0], weights[1, 0] = 0.5, -0.5  # the nearest place of the road
    weights[:, -1] = torch.tensor([1.0, -1.0])  # the feature that is always 1
    shown = view(*[picture(right_m=3.0)] * 4)
    wheel, throttle, brake = LinearPolicy("two", weights).driver(4, 0, "cpu")(shown).unbind(1)
    assert wheel.tolist() == pytest.approx([0.5, 0.5, -0.5, -0.5], abs=0.1)
    assert ((throttle > 0) == torch.tensor([True, True, False, False])).all()
    assert ((brake > 0) == torch.tensor([False, False, True, True])).all()


def test_a_mirrored_road_mirrors_the_wheel_alone() -> None:
    weights = torch.randn(1, FEATURES, generator=torch.Generator().manual_seed(1)) * 0.2
    bent = picture(right_m=1.0, bend_per_m=0.02)
    for policy in (RoadFollower("good"), LinearPolicy("linear", weights)):
        one, other = policy.driver(2, 0, "cpu")(view(bent, bent.flip(-1)))
        assert torch.allclose(one, other * torch.tensor([-1.0, 1.0, 1.0]), atol=1e-4)
