"""The occupancy model: its targets, its target network, and the one-step model within it."""

from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.config import MuonConfig
from training.errors import BadInput
from training.optimization.optimizers import block_matrices, build_optimizer
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import open_decoder, rollout
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.dynamics.occupancy.model import Occupancy
from worldmodel.dynamics.text import TextContext

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
ACTING = LayoutConfig("continuous")
CONFIG = OccupancyConfig(
    dim=24, num_layers=1, num_heads=2, context_steps=3, gamma=0.5, layout=ACTING
)


def make_model(config: OccupancyConfig = CONFIG) -> Occupancy:
    torch.manual_seed(0)
    return build_dynamics(config, SPEC, 2)


def make_clip(batch: int = 4, time: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 11, (batch, time, 2, 3), generator=generator)
    return tokens, torch.randn(batch, time, 2, generator=generator)


@pytest.mark.parametrize("steps", [2, 4])
def test_without_discount_it_is_the_one_step_model_to_the_digit(steps: int) -> None:
    """The same start, loss, gradient, score and sample, and no random number is drawn for it."""
    config = replace(CONFIG, gamma=0.0, context_steps=steps, dropout=0.1)
    ours = make_model(config)
    torch.manual_seed(0)
    gpt = GPT(config.trunk, SPEC, 2)
    tokens, actions = make_clip(time=steps)
    losses = []
    for network in (ours, gpt):
        torch.manual_seed(2)
        losses.append(network.loss(tokens, actions))
        losses[-1].backward()
    assert torch.equal(*losses)
    for mine, theirs in zip(ours.online.parameters(), gpt.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert torch.equal(mine.grad, theirs.grad)
    ours.eval(), gpt.eval()
    assert torch.equal(ours.score(tokens, actions).nats, gpt.score(tokens, actions).nats)
    state = (tokens[:, :-1], actions[:, : steps - 1], 1, Sampling(seed=3), 2)
    assert torch.equal(rollout(ours, *state), rollout(gpt, *state))


def test_the_target_network_alone_bootstraps_and_has_no_gradient() -> None:
    model = make_model(replace(CONFIG, gamma=0.9))
    tokens, actions = make_clip(64)
    torch.manual_seed(3)
    before = model.targets(tokens, actions)
    with torch.no_grad():
        for parameter in model.online.parameters():
            parameter.normal_()
    torch.manual_seed(3)
    assert torch.equal(model.targets(tokens, actions), before)
    with torch.no_grad():
        for parameter in model.target.parameters():
            parameter.normal_()
    torch.manual_seed(3)
    assert not torch.equal(model.targets(tokens, actions), before)
    model.loss(tokens, actions).backward()
    assert all(p.grad is None for p in model.target.parameters())
    assert not model.train().target.training


@pytest.mark.parametrize("horizon", [1, 3])
def test_targets_are_as_far_ahead_as_the_discount_says(horizon: int) -> None:
    """A share (1 - gamma) gamma^(k - 1) is the frame k ahead, gamma^horizon is bootstrapped."""
    config = replace(CONFIG, context_steps=1 + horizon, gamma=0.7, horizon=horizon)
    model = make_model(config)
    tokens = torch.arange(1 + horizon)[None, :, None, None].expand(4000, -1, 2, 3).clone()
    model.bootstrap = lambda state, *_: torch.full_like(state[:, :1], 10)  # type: ignore
    torch.manual_seed(0)
    drawn = model.targets(tokens, torch.zeros(4000, 1 + horizon, 2))
    found = drawn[:, 0, 0, 0].bincount(minlength=11)
    expected = [0.3 * 0.7**k for k in range(horizon)]
    assert found[0] == 0
    assert (found[1 : 1 + horizon] / 4000).tolist() == pytest.approx(expected, abs=0.03)
    assert found[10] / 4000 == pytest.approx(0.7**horizon, abs=0.03)


@pytest.mark.parametrize("horizon", [1, 2])
def test_a_bootstrap_starts_where_the_real_frames_end(horizon: int) -> None:
    """It reads the newest frames of the window, and the action after the last of them."""
    model = make_model(replace(CONFIG, context_steps=2 + horizon, gamma=0.999, horizon=horizon))
    tokens, actions = make_clip(8, 2 + horizon)
    seen = []
    model.bootstrap = lambda *asked: (seen.append(asked), asked[0][:, :1])[1]  # type: ignore
    captions = TextContext(torch.randn(3, 1, 4), torch.randint(0, 3, (8, 2 + horizon)))
    torch.manual_seed(0)
    model.targets(tokens, actions, torch.arange(8) % 2 == 0, captions)
    state, acted, drop, told, _ = seen[0]
    rows = [int((tokens[:, horizon:] == one).flatten(1).all(1).nonzero()) for one in state]
    assert len(rows) > 4
    assert torch.equal(acted, actions[rows, horizon:])
    assert torch.equal(drop, (torch.arange(8) % 2 == 0)[rows])
    assert torch.equal(told.index, captions.index[rows, horizon:])


def test_published_settings_change_what_they_say() -> None:
    tokens, actions = make_clip()
    targets = tokens[:, -1:]
    plain = make_model().loss_of(tokens, targets, actions)
    whole = make_model(replace(CONFIG, whole_sequence=True)).loss_of(tokens, targets, actions)
    nats = make_model().online.score(tokens, actions).nats
    torch.testing.assert_close(plain, nats[:, 1:].mean())
    torch.testing.assert_close(whole, nats.mean())
    drawn = []
    for top_k in (0, 1):
        model = make_model(replace(CONFIG, gamma=0.999, bootstrap_top_k=top_k))
        torch.manual_seed(0)
        drawn.append(model.targets(*make_clip(16)))
    assert not torch.equal(*drawn)


def test_the_target_network_follows_the_online_one() -> None:
    model = make_model()
    before = [p.clone() for p in model.target.parameters()]
    with torch.no_grad():
        for parameter in model.online.parameters():
            parameter.add_(1.0)
    model.after_step()
    for old, new in zip(before, model.target.parameters(), strict=True):
        torch.testing.assert_close(new, old + 1 - CONFIG.target_decay)


def test_every_frame_after_the_state_is_scored_given_the_state_alone() -> None:
    model = make_model(replace(CONFIG, context_steps=4, horizon=2)).eval()
    tokens, actions = make_clip(time=4)
    scores = model.score(tokens, actions)
    sequence = torch.cat([tokens[:, :2], tokens[:, 3:]], dim=1)
    expected = model.online.score(sequence, actions).nats[:, -1]
    torch.testing.assert_close(scores.nats[:, 3], expected)
    first, second = scores.nats[:, 2].mean(), scores.nats[:, 3].mean()
    torch.testing.assert_close(model.mean_nats(scores), (first + 0.5 * second) / 1.5)


def test_a_sample_is_one_frame_of_a_state() -> None:
    model = make_model().eval()
    tokens, actions = make_clip()
    futures = rollout(model, tokens[:, :2], actions, 1, Sampling(seed=1), 5)
    assert futures.shape == (4, 5, 1, 2, 3)
    with pytest.raises(BadInput, match="one frame of the discounted future"):
        rollout(model, tokens[:, :2], actions, 2)
    with pytest.raises(BadInput, match=r"prompt_steps=1: the state .* has 2 frames"):
        rollout(model, tokens[:, :1], actions, 1)
    decoder = open_decoder(model)
    decoder.start(tokens[:, :2], actions)
    decoder.next_frame(actions[:, 1])
    with pytest.raises(BadInput, match="one frame of the discounted future"):
        decoder.next_frame(actions[:, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.0}, r"gamma=1\.0: give a share from 0 to below 1"),
        ({"gamma": -0.1}, r"gamma=-0\.1"),
        ({"target_decay": 1.0}, r"target_decay=1\.0"),
        ({"horizon": 3}, r"horizon=3: give a whole number from 1 to 2"),
        ({"stack": 3}, r"stack=3: give a whole number from 1 to 2"),
        ({"layout": replace(ACTING, first_target_step=3)}, r"layout\.first_target_step=3"),
        ({"noise_levels": 2}, "noise_levels=2: an occupancy model reads no noise"),
        (
            {"layout": LayoutConfig("binned", predict_actions=1.0)},
            r"layout\.predict_actions=1\.0: this kind only reads actions",
        ),
    ],
)
def test_settings_out_of_range_are_named(changes: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(CONFIG, **changes)


def test_clips_without_a_frame_after_the_state_are_refused() -> None:
    tokens, actions = make_clip()
    with pytest.raises(BadInput, match="2 frames: the state of this occupancy model has 2"):
        make_model().loss(tokens[:, :2], actions)
    with pytest.raises(BadInput, match="action rows for a state of 2"):
        make_model(replace(CONFIG, gamma=0.999)).loss(tokens, actions[:, :2])


def test_a_description_makes_the_config_again() -> None:
    assert from_description(describe(CONFIG)) == CONFIG


def test_muon_steps_the_matrices_of_the_online_network() -> None:
    model = make_model()
    kernels = model.block_kernels()
    assert {f"online.{name}" for name in block_matrices(model.online)} == set(kernels)
    before = model.online.blocks[0].up.weight.clone(), model.target.blocks[0].up.weight.clone()
    optimizer, _ = build_optimizer(model, MuonConfig(lr=1e-9, warmup_steps=0), 10)
    model.loss(*make_clip()).backward()
    optimizer.step()
    assert (model.online.blocks[0].up.weight - before[0]).abs().mean() > 1e-4
    assert torch.equal(model.target.blocks[0].up.weight, before[1])


def test_flops_count_the_bootstraps() -> None:
    one, two = (make_model(replace(CONFIG, gamma=gamma)) for gamma in (0.0, 0.6))
    assert one.flops(2, 3) == one.online.flops(2, 3)
    assert two.flops(2, 3) == pytest.approx(1.2 * one.flops(2, 3))


STACKED = replace(CONFIG, stack=2, context_steps=4, horizon=2)


def test_a_stack_ends_with_the_frame_that_the_discount_chose() -> None:
    """Frames before it are real too, those of the state included; or all are bootstrapped."""
    model = make_model(replace(STACKED, gamma=0.7))
    tokens = torch.arange(4)[None, :, None, None].expand(2000, -1, 2, 3).clone()
    model.bootstrap = lambda state, *_: state + 7  # type: ignore
    torch.manual_seed(0)
    found = model.targets(tokens, torch.zeros(2000, 4, 2))[..., 0, 0]
    pairs, counts = found.unique(dim=0, return_counts=True)
    assert pairs.tolist() == [[1, 2], [2, 3], [9, 10]]
    assert (counts / 2000).tolist() == pytest.approx([0.3, 0.21, 0.49], abs=0.04)


def test_frames_of_a_stack_are_sampled_after_each_other_under_the_first_action() -> None:
    model = make_model(STACKED).eval()
    tokens, actions = make_clip()
    futures = rollout(model, tokens[:, :2], actions, 2, Sampling(seed=1), 3)
    assert futures.shape == (4, 3, 2, 2, 3)
    other = actions.clone()
    other[:, 2:] = 9.0  # later rows are the policy's
    assert torch.equal(futures, rollout(model, tokens[:, :2], other, 2, Sampling(seed=1), 3))
    assert not torch.equal(futures[:, :, 0], futures[:, :, 1])
    with pytest.raises(BadInput, match="or `stack` of them"):
        rollout(model, tokens[:, :2], actions, 1)
    drawn = model.bootstrap(tokens[:, :2], actions, None, None, Sampling(seed=1))
    assert drawn.shape == (4, 2, 2, 3)


def test_loss_and_scores_count_every_frame_of_a_stack() -> None:
    model = make_model(replace(STACKED, gamma=0.0, horizon=1, context_steps=3)).eval()
    tokens, actions = make_clip()
    acted = torch.stack([actions[:, 0], actions[:, 1], actions[:, 1]], dim=1)
    sequence = tokens[:, [0, 1, 1, 2]]
    nats = model.online.score(sequence, acted).nats
    torch.testing.assert_close(model.loss(tokens, actions), nats[:, 1:].mean())
    scores = model.score(tokens, actions)
    torch.testing.assert_close(scores.nats[:, 2], nats[:, 2:].mean(dim=1))
    assert torch.equal(scores.nats[:, :2], nats[:, :2])
    assert scores.rank.shape == scores.nats.shape


def test_flops_count_the_frames_of_a_stack() -> None:
    one, two = make_model(replace(STACKED, stack=1)), make_model(STACKED)
    assert 1.2 < two.flops(2, 4) / one.flops(2, 4) < 1.5
