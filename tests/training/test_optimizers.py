"""Schedules and parameter groups."""

import pytest
import torch

from training.config import AdamWConfig
from training.errors import BadInput
from training.optimization.optimizers import build_optimizer, lr_factor


def curve(max_steps=1000, **settings):
    config = AdamWConfig(warmup_steps=100, **settings)
    return [lr_factor(config, step, max_steps) for step in range(max_steps)]


def test_cosine_warms_up_peaks_and_ends_at_its_minimum():
    rates = curve(schedule="cosine", min_lr_ratio=0.1)
    assert rates[:100] == sorted(rates[:100])
    assert max(rates) == pytest.approx(1.0)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert rates[550] == pytest.approx(0.55, abs=1e-2)


def test_wsd_is_flat_and_then_falls_in_a_line():
    rates = curve(schedule="wsd", min_lr_ratio=0.0, decay_share=0.2)
    assert set(rates[100:800]) == {1.0}
    assert rates[900] == pytest.approx(0.5, abs=1e-2)
    assert rates[-1] < 0.01


def test_a_share_of_the_schedule_ends_in_its_middle():
    whole, half = curve(2000), curve(1000, schedule_share=0.5)
    assert half == whole[:1000]


def test_constant_stays():
    assert set(curve(schedule="constant")[100:]) == {1.0}


def test_the_warm_up_never_takes_more_than_half_of_a_short_run():
    assert lr_factor(AdamWConfig(warmup_steps=100), 5, max_steps=10) == pytest.approx(1.0)


def test_only_matrices_decay():
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    optimizer, _ = build_optimizer(module, AdamWConfig(weight_decay=0.3), max_steps=10)
    by_decay = {g["weight_decay"]: g["params"] for g in optimizer.param_groups}
    assert [p.ndim for p in by_decay[0.3]] == [2]
    assert [p.ndim for p in by_decay[0.0]] == [1, 1, 1]


@pytest.mark.parametrize("settings", [{"schedule": "cosin"}, {"lr": 0.0}, {"lr": -1.0}])
def test_nonsense_is_refused(settings):
    with pytest.raises(BadInput, match=next(iter(settings))):
        AdamWConfig(**settings)
