"""Whole frames with keyframes: which frames are read, what counts, and decoding that equals it."""

from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.keyframes.config import KeyframesConfig
from worldmodel.dynamics.keyframes.model import Keyframes
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
# A full context of 9: keyframes 0 and 3, newest 6, 7, 8.
CONFIG = KeyframesConfig(
    dim=24, num_layers=4, num_heads=2, context_steps=9, keyframes=2, keyframe_every=3
)


def make_model(
    layout: str = "continuous", inner_layers: int = 0, action_input: str = "input"
) -> Keyframes:
    torch.manual_seed(0)
    read = LayoutConfig(layout, num_bins=8, action_input=action_input)
    config = replace(CONFIG, layout=read, inner_layers=inner_layers)
    model = build_dynamics(config, SPEC, 2).eval()
    for parameter in model.parameters():  # far from its start, where every logit is about 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def make_clip(time: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 11, (2, time, 2, 3)), torch.randn(2, time, 2)


def test_a_context_is_keyframes_and_the_newest_frames() -> None:
    assert CONFIG.newest == 3
    assert CONFIG.places(9) == [0, 3, 6, 7, 8]
    assert CONFIG.places(20) == [11, 14, 17, 18, 19]
    assert [CONFIG.places(stop) for stop in (1, 3, 5, 6, 8)] == [
        [0],
        [0, 1, 2],
        [2, 3, 4],
        [0, 3, 4, 5],
        [2, 5, 6, 7],
    ]
    # The newest frames always stand at the same times, a keyframe where it is in a full context.
    assert [CONFIG.times(num) for num in (1, 3, 4, 5)] == [
        [6],
        [6, 7, 8],
        [3, 6, 7, 8],
        [0, 3, 6, 7, 8],
    ]


def test_the_last_frame_sees_the_frames_of_its_context_alone() -> None:
    model, (tokens, actions) = make_model(), make_clip()
    reference, seen = model(tokens, actions)[:, -1], []
    for place in range(9):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 11
        if not torch.equal(model(changed, actions)[:, -1], reference):
            seen.append(place)
    assert seen == [0, 3, 6, 7]  # frame 8 is predicted


def test_actions_between_two_frames_are_averaged() -> None:
    model, (tokens, actions) = make_model(), make_clip()
    swapped, changed = actions.clone(), actions.clone()
    swapped[:, [0, 2]] = actions[:, [2, 0]]  # between keyframes 0 and 3
    changed[:, 1] += 3
    reference = model(tokens, actions)[:, -1]
    torch.testing.assert_close(model(tokens, swapped)[:, -1], reference)
    assert not torch.allclose(model(tokens, changed)[:, -1], reference)


def test_every_frame_of_a_clip_is_scored_from_a_context_that_ends_before_it() -> None:
    model, (tokens, actions) = make_model(), make_clip()
    scores = model.score(tokens, actions)
    assert scores.nats.shape == (2, 9, 6)
    for step in (2, 4, 6, 8):  # the last frames of passes
        alone = model.score(tokens[:, : step + 1], actions[:, :step]).nats[:, -1]
        torch.testing.assert_close(scores.nats[:, step], alone)
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    assert torch.equal(model.score(changed, actions).nats[:, :5], scores.nats[:, :5])


def test_the_loss_counts_the_newest_frames_in_one_pass() -> None:
    model, (tokens, actions) = make_model(), make_clip()
    nats = model.score(tokens, actions).nats
    torch.testing.assert_close(model.loss(tokens, actions), nats[:, -2:].mean())
    model.train()  # half of the batches have 0 or 1 of the 2 keyframes
    losses = [model.loss(tokens, actions).item() for _ in range(40)]
    different = sorted({round(loss, 5) for loss in losses})
    assert len(different) == 3
    full = model.eval().loss(tokens, actions).item()
    assert 10 <= sum(abs(loss - full) < 1e-4 for loss in losses) <= 30
    shortest = model.loss(tokens[:, 6:], actions[:, 6:]).item()
    assert min(abs(loss - shortest) for loss in different) < 1e-4


@pytest.mark.parametrize(
    ("inner_layers", "layout", "action_input", "prompt"),
    [
        (0, "none", "input", 4),
        (1, "continuous", "adaln", 4),
        (1, "binned", "input", 1),
        (1, "binned", "input", 4),
    ],
)
def test_decoding_reads_the_context_of_each_frame_anew(
    inner_layers: int, layout: str, action_input: str, prompt: int
) -> None:
    model = make_model(layout, inner_layers, action_input)
    tokens, actions = make_clip(prompt)[0], 3 * make_clip(24)[1]
    given = None if layout == "none" else actions
    futures = rollout(model, tokens, given, 11, Sampling(greedy=True), 2)
    assert torch.equal(futures[:, 0], futures[:, 1])
    assert len(futures.unique()) > 1
    for step in range(prompt, prompt + 11):
        begin = max(0, step + 1 - 9)
        frames = torch.cat([tokens, futures[:, 0]], 1)[:, begin : step + 1]
        rows = None if given is None else given[:, begin:step]
        best = model(frames, rows)[:, -1].argmax(-1)
        assert torch.equal(best, frames[:, -1].flatten(1)), step


def test_it_costs_what_it_reads() -> None:
    model, layout = make_model(), LayoutConfig("continuous", num_bins=8)
    same = WholeFrameConfig(dim=24, num_layers=4, num_heads=2, context_steps=9, layout=layout)
    assert model.flops(2, 9) == pytest.approx(build_dynamics(same, SPEC, 2).flops(2, 5))


def test_it_is_described_and_refuses() -> None:
    assert from_description(describe(CONFIG)) == CONFIG
    with pytest.raises(BadInput, match=r"keyframes=2 with keyframe_every=3 and context_steps=7"):
        replace(CONFIG, context_steps=7)
    with pytest.raises(BadInput, match="reads no captions"):
        replace(CONFIG, layout=LayoutConfig("continuous", text_tokens=4))
    with pytest.raises(BadInput, match="can be decoded by: keyframes"):
        open_decoder(make_model(), method="whole")
    with pytest.raises(BadInput, match="keyframes has no such option"):
        open_decoder(make_model(), slide_steps=2)


def test_a_recipe_trains_with_keyframes(composed, fit) -> None:
    """As `model=keyframes` on the command line; validation scores all of its windows' frames."""
    world = ["data=known_entropy", *(f"data.source.{s}" for s in ("num_train=2", "num_test=1"))]
    small = ["model.network.dim=24", "model.network.num_layers=2", "model.network.num_heads=2"]
    steps = ["trainer.max_steps=2", "trainer.val_check_interval=2", "data.batch_size=2"]
    cfg = composed(
        "gpt_tiny",
        "model=keyframes",
        "model.network.context_steps=16",
        *world,
        "data.source.steps=60",
        "data.num_val_windows=2",
        *small,
        *steps,
        "callbacks.media=null",
    )
    module, run, _ = fit(cfg)
    assert isinstance(module.network, Keyframes)
    assert module.network.config.newest == 4
    rows = (run.folder / "metrics.jsonl").read_text()
    assert "val/loss" in rows
