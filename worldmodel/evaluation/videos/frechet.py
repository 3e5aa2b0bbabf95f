"""Frechet distances between two sets of feature vectors, with intervals and by number of clips.

Source: Dowson and Landau 1982; FID: Heusel et al. 2017 (arXiv:1706.08500); FVD: Unterthiner et al.
2018 (arXiv:1812.01717).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokenizer.compare.fid import FeatureStats, frechet_distance
from worldmodel.evaluation.intervals import SEED, Estimate, bootstrap

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
CURVE_POINTS, CURVE_REPEATS = 6, 8
RESAMPLES = 100


class Frechet:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2) of any subsets of two sets of vectors.

    With fewer vectors than dimensions the value is computed from inner products of vectors alone:
    tr (S_a S_b)^1/2 is the sum of the singular values of A B^T / sqrt((n - 1) (m - 1)), where A and
    B hold the centred vectors as rows. That is exact, and fast enough for a bootstrap.
    """

    def __init__(self, a: npt.ArrayLike, b: npt.ArrayLike) -> None:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        # Distances do not depend on the origin; near it, rounding is small.
        origin = np.concatenate([a, b]).mean(0)
        self.a, self.b = a - origin, b - origin
        self._cross = self.a @ self.b.T

    def __call__(self, i: Indices | None = None, j: Indices | None = None) -> float:
        """The distance between the vectors with these indices (None: all).

        Raises:
            ValueError: a side has fewer than two vectors.
        """
        i = np.arange(len(self.a)) if i is None else i
        j = np.arange(len(self.b)) if j is None else j
        if min(len(i), len(j)) < 2:
            raise ValueError(f"{len(i)} and {len(j)} vectors have no covariance; give at least 2")
        if min(len(i), len(j)) > self.a.shape[1]:
            return frechet_distance(_stats(self.a[i]), _stats(self.b[j]))
        a, b = self.a[i], self.b[j]
        mean_a, mean_b = a.mean(0), b.mean(0)
        cross = self._cross[np.ix_(i, j)]
        cross = cross - (a @ mean_b)[:, None] - (b @ mean_a) + mean_a @ mean_b
        root = np.linalg.svd(cross, compute_uv=False).sum() / np.sqrt((len(i) - 1) * (len(j) - 1))
        spread = np.square(a - mean_a).sum() / (len(i) - 1)
        spread += np.square(b - mean_b).sum() / (len(j) - 1)
        return max(0.0, float(np.square(mean_a - mean_b).sum() + spread - 2 * root))


def _stats(vectors: Floats) -> FeatureStats:
    stats = FeatureStats(vectors.shape[1])
    stats.update(torch.from_numpy(vectors))
    return stats


@dataclass(frozen=True)
class VideoFeatures:
    """Feature vectors of clips, and the video of each.

    Attributes:
        vectors: float64 [clip feature].
    """

    vectors: Floats
    videos: Sequence[str]

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, chosen: Indices) -> "VideoFeatures":
        return VideoFeatures(self.vectors[chosen], [self.videos[i] for i in chosen])


def estimate(real: VideoFeatures, fake: VideoFeatures, resamples: int = RESAMPLES) -> Estimate:
    """The distance, with an interval over resampled videos of each side.

    A resampling repeats videos, which raises the distance. The interval is moved by the mean rise,
    so it shows spread; the curve over numbers of clips shows bias.
    """
    distance, count = Frechet(real.vectors, fake.vectors), len(real)
    names = [f"real {name}" for name in real.videos] + [f"fake {name}" for name in fake.videos]
    sides = [0] * count + [1] * len(fake)

    def statistic(chosen: Indices) -> float:
        return distance(chosen[chosen < count], chosen[chosen >= count] - count)

    return bootstrap(statistic, names, resamples, strata=sides, centred=True)


def curve(real: VideoFeatures, fake: VideoFeatures) -> dict[str, list[Any]]:
    """The distance against the number of clips, as means of random subsets of equal size.

    Returns:
        num_clips, value, and limit: the value at infinitely many clips by a line in 1 / num_clips
        through the larger half of the points (Chong and Forsyth 2020, arXiv:1911.07023).
    """
    distance = Frechet(real.vectors, fake.vectors)
    most = min(len(real), len(fake))
    counts = np.unique(np.geomspace(max(2, most / 8), most, CURVE_POINTS).astype(int))
    values = [_at_count(distance, int(count)) for count in counts]
    half = len(counts) // 2
    line = np.polyfit(1 / counts[half:], values[half:], 1) if len(counts) - half > 1 else None
    limit = None if line is None else float(line[1])
    return {"num_clips": counts.tolist(), "value": values, "limit": limit}


def at_count(real: VideoFeatures, fake: VideoFeatures, count: int) -> float:
    """The distance between random subsets of `count` clips, the mean of some."""
    return _at_count(Frechet(real.vectors, fake.vectors), count)


def _at_count(distance: Frechet, count: int) -> float:
    rng = np.random.default_rng(SEED)
    sizes = (len(distance.a), len(distance.b))
    repeats = 1 if sizes == (count, count) else CURVE_REPEATS
    draws = [[rng.permutation(size)[:count] for size in sizes] for _ in range(repeats)]
    return float(np.mean([distance(i, j) for i, j in draws]))


def halves(features: VideoFeatures) -> tuple[VideoFeatures, VideoFeatures]:
    """Two halves of different videos, or of one video's first and second clips."""
    names = sorted(set(features.videos))
    order = np.random.default_rng(SEED).permutation(len(names))
    first = {names[i] for i in order[: len(names) // 2]}
    mask = np.array([name in first for name in features.videos])
    if len(names) == 1:
        mask = np.arange(len(features)) < len(features) // 2
    return features[np.flatnonzero(mask)], features[np.flatnonzero(~mask)]
