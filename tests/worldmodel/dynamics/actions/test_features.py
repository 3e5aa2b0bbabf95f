"""Differences and predicted paths beside the raw columns: what they are, and cached decoding."""

import math
from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.dynamics.actions.vector import ActionVector
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.keyframes.config import KeyframesConfig
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 2, (16, 24), "test")  # 0.2 s a step
PLAIN = LayoutConfig("continuous")
KINDS = {
    "gpt": GPTConfig(dim=24, num_layers=2, num_heads=2, context_steps=4),
    "keyframes": KeyframesConfig(
        dim=24, num_layers=2, num_heads=2, context_steps=4, keyframes=1, keyframe_every=2
    ),
    "masked": MaskedConfig(dim=24, num_layers=2, num_heads=2, context_steps=4),
    "whole frame": WholeFrameConfig(dim=24, num_layers=4, num_heads=2, context_steps=4),
}
COLUMNS = ("steering", "speed_mps")


def layout(*features: str, **values: object) -> LayoutConfig:
    given = {"action_features": features, "action_columns": COLUMNS} | values
    return replace(PLAIN, **given)


def further(reading: LayoutConfig, rows: list[list[float]]) -> torch.Tensor:
    """The features of one window."""
    vector = ActionVector(reading, len(rows[0]), 8, SPEC.step_s)
    return vector.scaled(torch.tensor([rows], dtype=torch.float32))[0, :, len(rows[0]) :]


def make_model(kind: str, reading: LayoutConfig) -> Dynamics:
    torch.manual_seed(0)
    model = build_dynamics(replace(KINDS[kind], layout=reading), SPEC, 2).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def make_clip(time: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    rows = torch.randn(2, time, 2) * torch.tensor([0.5, 4.0]) + torch.tensor([0.0, 8.0])
    return torch.randint(0, 11, (2, time, 2, 3)), rows


def test_a_difference_is_to_the_row_before_in_the_scale_of_the_column() -> None:
    standard = {"action_scale": "standard", "action_mean": (1.0, 5.0), "action_std": (0.5, 2.0)}
    found = further(layout("difference", **standard), [[1.0, 7.0], [1.5, 5.0], [1.5, 5.0]])
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [1.0, -1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("turning", ["yaw_rate_rad_s", "curvature_per_m", "steering"])
def test_a_path_is_the_arc_that_the_car_drives(turning: str) -> None:
    speed, curvature, seconds = 10.0, 0.15, SPEC.step_s
    value = {
        "yaw_rate_rad_s": speed * curvature,
        "curvature_per_m": curvature,
        "steering": -curvature / 0.3,  # positive to the right
    }[turning]
    names = ("throttle", turning, "speed_mps")
    reading = layout("path", action_columns=names, full_lock_per_m=0.3)
    ahead, left, turned = further(reading, [[1.0, value, speed]])[0].tolist()
    heading, x, y, num = 0.0, 0.0, 0.0, 10_000
    for _ in range(num):
        x += speed * seconds / num * math.cos(heading)
        y += speed * seconds / num * math.sin(heading)
        heading += curvature * speed * seconds / num
    assert ahead == pytest.approx(x, rel=1e-3)
    assert left == pytest.approx(y, rel=1e-3)
    assert turned == pytest.approx(heading, rel=1e-4)


def test_a_standardised_path_has_deviations_near_one() -> None:
    torch.manual_seed(0)
    rows = torch.randn(4096, 2) * torch.tensor([0.3, 2.0]) + torch.tensor([0.0, 12.0])
    mean, std = (tuple(part.tolist()) for part in (rows.mean(0), rows.std(0)))
    reading = layout("path", action_scale="standard", action_mean=mean, action_std=std)
    found = further(reading, rows.tolist())
    assert ((found.std(0) > 0.7) & (found.std(0) < 1.5)).all()
    assert found.mean(0).abs().max() < 0.2


@pytest.mark.parametrize("features", [("difference",), ("path",), ("difference", "path")])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_decoding_reads_the_features_of_training(
    kind: str, features: tuple[str, ...]
) -> None:
    """Frame by frame over a sliding context, as teacher-forced on the same window."""
    model = make_model(kind, layout(*features))
    tokens, actions = make_clip()
    decoder = open_decoder(model, Sampling(greedy=True), **_sliding(kind))
    decoder.start(tokens[:, :1], actions[:, :0])
    for time in range(1, tokens.shape[1]):
        nats = decoder.score_next(tokens[:, time], actions[:, time - 1])
        begin = max(0, time - 3)
        window = model.score(tokens[:, begin : time + 1], actions[:, begin:time])
        torch.testing.assert_close(nats.flatten(), window.nats[:, -1].flatten(), msg=str(time))


def _sliding(kind: str) -> dict[str, int]:
    return {} if kind == "keyframes" else {"slide_steps": 1}


def test_a_rolling_cache_keeps_its_differences() -> None:
    model = make_model("gpt", layout("difference"))
    tokens, actions = make_clip()
    greedy = Sampling(greedy=True)
    rolled, slid = (
        rollout(model, tokens[:, :1], actions, 3, greedy, window=window)
        for window in ("roll", "slide")
    )
    assert torch.equal(rolled, slid)


@pytest.mark.parametrize("kind", KINDS)
def test_features_change_what_a_network_reads_and_not_its_raw_columns(kind: str) -> None:
    tokens, actions = make_clip(4)
    plain, ours = make_model(kind, PLAIN), make_model(kind, layout("difference", "path"))
    first = "action.0.weight"
    (before,), (after,) = (
        [p for name, p in model.named_parameters() if name == first] for model in (plain, ours)
    )
    assert after.shape[1] == before.shape[1] + 2 + 3
    assert plain.state_dict().keys() == ours.state_dict().keys()
    changed = ours.score(tokens, actions).nats
    with torch.no_grad():
        after[:, 2:] = 0
    assert not torch.equal(ours.score(tokens, actions).nats, changed)


def test_names_of_columns_come_from_the_data_and_stay_in_the_config() -> None:
    asked = replace(KINDS["gpt"], layout=layout("path", action_columns=None))
    assert asked.named(COLUMNS).layout.action_columns == COLUMNS
    with pytest.raises(BadInput, match=r"action_columns=.*the data has \['other'\]"):
        asked.named(COLUMNS).named(("other",))
    assert from_description(describe(asked.named(COLUMNS))) == asked.named(COLUMNS)
    without = replace(asked, layout=layout("difference", action_columns=None))
    assert without.named(COLUMNS) == without
    assert asked.without_actions().layout == LayoutConfig("none")
    with pytest.raises(BadInput, match=r"action_columns=null.*training takes the names"):
        build_dynamics(asked, SPEC, 2)
    for names in [("steering", "throttle"), ("speed_mps", "throttle"), ()]:
        with pytest.raises(BadInput, match=r"path: needs the column speed_mps and one of yaw_rate"):
            build_dynamics(asked.named(names), SPEC, max(1, len(names)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"action_features": ("speed",)},
        {"actions": "binned", "action_features": ("path",)},
        {"actions": "none", "action_features": ("difference",)},
        {"full_lock_per_m": 0.0},
    ],
)
def test_settings_that_would_do_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=r"layout\.(action_features|full_lock_per_m)="):
        LayoutConfig(**{"actions": "continuous", **wrong})
