"""Control error: difference between a video's action table and actions read from its pixels.

An inverse-dynamics model learns from one half of the real clips. Its error on the other half is the
ceiling, the error of a still picture the floor.
"""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from drives.actions.table import read_actions
from training.errors import BadInput
from worldmodel.evaluation.control.agreement import agreement
from worldmodel.evaluation.control.inverse_dynamics import InverseDynamics, readable
from worldmodel.evaluation.control.training import MIN_PAIRS, train_inverse_dynamics
from worldmodel.evaluation.intervals import SEED
from worldmodel.evaluation.videos.clips import VideoClips
from worldmodel.evaluation.videos.folders import VideoFile

Table = tuple[tuple[str, ...], np.ndarray]


class Readings(NamedTuple):
    """Actions read from clips, and commanded ones, [clip step column]."""

    read: np.ndarray
    commanded: np.ndarray
    units: list[str]


class Control:
    """Clips with actions; a fake video without a table takes its real namesake's."""

    def __init__(self, real: VideoClips, fake: VideoClips) -> None:
        self.real, self.fake = real, fake
        by_name = {video.name: video for video in real.videos}
        self.tables = tuple(
            [_table(video) or _table(by_name.get(video.name)) for video in clips.videos]
            for clips in (real, fake)
        )

    @cached_property
    def columns(self) -> list[str]:
        """Columns that pixels show and every table has."""
        tables = [table for side in self.tables for table in side if table]
        return [n for n in readable(tables[0][0]) if all(n in t[0] for t in tables)]

    @cached_property
    def halves(self) -> tuple[list[int], list[int]]:
        """Real clips to learn from and to measure on, of different units."""
        known = self._with_actions(0)
        units = self.real.units
        names = sorted({units[i] for i in known})
        order = np.random.default_rng(SEED).permutation(len(names))
        first = {names[i] for i in order[: (len(names) + 1) // 2]}
        return [i for i in known if units[i] in first], [i for i in known if units[i] not in first]

    def refusal(self) -> str:
        """Why control is not measured; "" where it is."""
        if not self._with_actions(0) or not self._with_actions(1):
            return "needs actions.csv beside real videos, and beside fake ones or their namesakes"
        if not self.columns:
            return "no column that pixels show (such as yaw_rate_rad_s, steering) is in all tables"
        pairs = len(self.halves[0]) * (self.real.num_frames - 1)
        if pairs < MIN_PAIRS or len(self.halves[1]) < 2:
            return (
                f"needs {MIN_PAIRS} pairs of real frames to learn from, half the clips have {pairs}"
            )
        return ""

    def measure(self) -> dict[str, Any]:
        """Agreement of readings with actions by column, on real and on fake clips."""
        model = self._trained()
        sides = {
            "real": self._readings(model, 0, self.halves[1]),
            "fake": self._readings(model, 1, self._with_actions(1)),
        }
        result: dict[str, Any] = {"num_clips_learned": len(self.halves[0]), "model": model.hash}
        for index, name in enumerate(model.names):
            result[name] = {
                side: agreement(s.read[..., index], s.commanded[..., index], s.units).plain()
                for side, s in sides.items()
            }
            fake = sides["fake"]
            still = np.zeros_like(fake.read[..., index])
            floor = agreement(still, fake.commanded[..., index], fake.units)
            result[name]["floor_frozen"] = floor.plain()
        return result

    def _with_actions(self, side: int) -> list[int]:
        clips = (self.real, self.fake)[side]
        return [i for i, (number, _) in enumerate(clips.places) if self.tables[side][number]]

    def _trained(self) -> InverseDynamics:
        recordings = (
            (self.real.read(i).numpy(), self._actions(0, i, self.columns)) for i in self.halves[0]
        )
        return train_inverse_dynamics(recordings, self.columns)

    def _readings(self, model: InverseDynamics, side: int, chosen: list[int]) -> Readings:
        clips = (self.real, self.fake)[side]
        read = [model.read(clips.read(i).numpy()[None])[0] for i in chosen]
        # Row t leads to frame t + 1, so the last row leads out of the clip.
        rows = [self._actions(side, i, model.names)[:-1] for i in chosen]
        return Readings(np.stack(read), np.stack(rows), [clips.units[i] for i in chosen])

    def _actions(self, side: int, clip: int, columns: Any) -> np.ndarray:
        clips = (self.real, self.fake)[side]
        number, start = clips.places[clip]
        video, table = clips.videos[number], self.tables[side][number]
        assert table is not None
        names, values = table
        rows = [video.stored(start + i) for i in range(clips.num_frames)]
        if rows[-1] >= len(values):
            raise BadInput(
                f"{video.name}: its action table has {len(values)} rows, none for frame "
                f"{rows[-1]}; give one row per frame"
            )
        return values[np.ix_(rows, [names.index(name) for name in columns])]


def _table(video: VideoFile | None) -> Table | None:
    """Column names and values beside a video, if any."""
    if video is None or video.actions is None:
        return None
    names, values = read_actions(video.actions)
    return (names, values) if names else None
