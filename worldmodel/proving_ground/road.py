"""The road in a picture of CarRacing, as a driver ahead of the car sees it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from drives.carracing.simulator import CAR_AT, VIEW_M

NEAREST_M, EVERY_M = 4.5, 1.5  # rows that are read: from before the car's nose on
HALF_M = 7.5  # a little more than half of the road, whose edges are 13.3 m apart
FOUND_M = 2.0  # width of road that counts as seen
REACH_M = 6.0  # how far aside the road is looked for where there is none ahead
GRASS = 50.0  # levels by which green exceeds the other colours: 100 and more on grass, none on road


@dataclass(frozen=True)
class Road:
    """The middle of the road ahead.

    Attributes:
        right_m: its place to the right of the car's axis, by distance; where the road is out of
            sight, the last place that was seen.
        ahead_m: the distances.
        seen_m: how far the road is seen without a break; 0: not at all.
    """

    right_m: Float[Tensor, "car distance"]
    ahead_m: Float[Tensor, " distance"]
    seen_m: Float[Tensor, " car"]

    def at(self, distance_m: Float[Tensor, " car"]) -> Float[Tensor, " car"]:
        """`right_m` at a distance, between the rows that were read."""
        place = (distance_m - self.ahead_m[0]) / EVERY_M
        place = place.clamp(0, len(self.ahead_m) - 1.001)
        low, rest = place.long(), place.frac()
        near, far = (self.right_m.gather(1, (low + i)[:, None])[:, 0] for i in (0, 1))
        return near + rest * (far - near)


def read_road(frames: UInt8[Tensor, "car 3 height width"]) -> Road:
    """Follows the road row by row, from before the car to the top of the picture.

    Grass is green, the road is grey. In each row the middle is the mean of the road's pixels around
    the middle of the row before.
    """
    height, width = frames.shape[-2:]
    per_px = VIEW_M / height
    red, green, blue = frames.float().unbind(1)
    grey = (1 - (green - (red + blue) / 2) / GRASS).clamp(0, 1)
    right = ((torch.arange(width, device=frames.device) + 0.5) / width - 0.5) * VIEW_M
    middle = frames.new_zeros(len(frames), dtype=torch.float32)
    begun = torch.zeros_like(middle, dtype=torch.bool)
    ended, seen, middles = begun.clone(), torch.zeros_like(middle), []
    car = height * (1 - CAR_AT)
    ahead = torch.arange(NEAREST_M, car * per_px, EVERY_M)
    for distance in ahead.tolist():
        row = grey[:, min(height - 1, max(0, int(car - distance / per_px)))]
        aside = (right - middle[:, None]).abs()
        near = row * (aside < HALF_M)
        wide = row * torch.exp(-aside / REACH_M)
        weight = torch.where(begun[:, None], near, wide)
        there = torch.where(begun[:, None], near, row).sum(1) * per_px
        found = (there > FOUND_M) & ~ended
        mean = (weight * right).sum(1) / weight.sum(1).clamp(min=1e-6)
        middle = torch.where(found, mean, middle)
        ended = ended | (begun & ~found)
        begun = begun | found
        seen = torch.where(found, distance, seen)
        middles.append(middle)
    return Road(torch.stack(middles, 1), ahead.to(frames.device), seen)
