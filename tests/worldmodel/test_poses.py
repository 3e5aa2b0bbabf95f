"""commaVQ's poses, from its tars to futures that imagine them; bins lie where the actions do."""

import numpy as np
import pytest
import torch
from commavq_files import make_segments, write_tar

from drives.tokens.store import TokenDrive
from training.errors import BadInput
from worldmodel.action_ranges import action_ranges
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.load import load_world_model

SMALL = (
    "+debug=fast",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "model.network.num_layers=1",
    "model.network.dim=48",
    "model.network.num_heads=2",
    "data.batch_size=2",
    "data.num_val_windows=2",
    "callbacks.media=null",
)


def drive(actions, damage=""):
    tokens = np.zeros((len(actions), 1, 1), np.uint16)
    return TokenDrive("d", "train", tokens, np.asarray(actions, np.float32), damage)


def test_tars_train_a_model_that_imagines_poses_and_obeys_them(tmp_path, composed, fit):
    write_tar(tmp_path / "data-0000.tar.gz", make_segments(3))
    source = (
        "data=commavq",
        f"data.root={tmp_path}/data-0000.tar.gz",
        f"data.source.cache={tmp_path}",
    )
    _, run, _ = fit(composed("gpt_pose_tiny", *source, *SMALL))
    model = load_world_model(run.folder)
    assert model.action_names == tuple(f"pose_{i}" for i in range(6))
    poses = make_segments(3)["segment-00"]["pose.npy"].astype(np.float32)[1:]
    layout = model.network.config.layout
    assert layout.action_min == pytest.approx(poses.min(0), rel=1e-6)
    assert layout.action_max == pytest.approx(poses.max(0), rel=1e-6)
    bins = model.network.layout.action_bins(torch.from_numpy(poses)[None])
    assert all(len(column.unique()) > 10 for column in bins[0].T)

    tokens = torch.from_numpy(make_segments(3)["segment-02"]["token.npy"][None, :2]).long()
    rows = torch.from_numpy(poses[None])
    futures = [
        rollout(model.network, tokens, given, 2, Sampling(seed=0))
        for given in (rows[:, :1], rows[:, :1], rows[:, :4], -rows[:, :4])
    ]
    assert futures[0].shape == (1, 1, 2, 8, 16)
    assert torch.equal(futures[0], futures[1])
    assert not torch.equal(futures[0], futures[2])
    assert not torch.equal(futures[2], futures[3])


def test_ranges_are_those_of_every_column_without_outliers():
    rng = np.random.default_rng(0)
    actions = np.stack([rng.uniform(-1, 1, 3000), rng.uniform(0, 1e-3, 3000), np.ones(3000)], 1)
    actions[7] = [1e6, -1e6, 1.0]
    actions[9, 0] = 2.5  # rare, and no outlier
    low, high = action_ranges([drive(actions), drive(actions + 1e9, damage="unreadable")])
    assert low == pytest.approx([-1, 0, 0.5], abs=1e-3)
    assert high == pytest.approx([2.5, 1e-3, 1.5], abs=1e-6)
    # A pedal that is hardly ever pressed keeps its range.
    brake = np.zeros((3000, 1))
    brake[5] = 1
    assert action_ranges([drive(brake)]) == ((0.0,), (1.0,))
    assert action_ranges([drive(np.zeros((5, 0)))]) == ((), ())


def test_of_many_rows_some_are_read():
    actions = np.arange(100.0)[:, None]
    assert action_ranges([drive(actions)], max_rows=10) == ((0.0,), (90.0,))


def test_given_ranges_stay_and_unknown_ones_are_refused():
    ranges = ((-3.0, -4.0), (3.0, 4.0))
    unknown = LayoutConfig("binned", action_min=None, action_max=None)
    assert unknown.within(ranges).ranges(2) == ranges
    assert LayoutConfig("binned", action_min=-1, action_max=None).within(ranges).ranges(2) == (
        (-1, -1),
        (3.0, 4.0),
    )
    assert LayoutConfig("continuous", action_min=None).within(ranges).action_min is None
    with pytest.raises(BadInput, match="training takes them from its drives"):
        unknown.ranges(2)
