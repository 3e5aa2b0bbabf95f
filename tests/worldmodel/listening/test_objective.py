"""Terms that make a model listen: off they change no bit, on each does what it says."""

import math
from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.config import AdamWConfig
from training.errors import BadInput
from worldmodel.conditioning.robustness import Robustness
from worldmodel.data import TokenClip
from worldmodel.dynamics.config import DynamicsConfig, LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.listening.action_reader import ActionReader
from worldmodel.listening.cells import cell_weights
from worldmodel.listening.config import ListeningConfig
from worldmodel.listening.contrast import contrast, rivals, with_rows
from worldmodel.load import load_world_model
from worldmodel.module import WorldModelModule

SPEC = TokenSpec((1, 2, 4), 11, 10.0, 1, (16, 32), "test")
LAYOUT = LayoutConfig("continuous")
KINDS: dict[str, DynamicsConfig] = {
    "gpt": GPTConfig(dim=24, num_layers=2, num_heads=2, context_steps=4, layout=LAYOUT),
    "whole frame": WholeFrameConfig(
        dim=24, num_layers=2, num_heads=2, context_steps=4, layout=LAYOUT
    ),
}
MOMENTS = ((0.5, 0.0), (1.0, 2.0))
EVERY = ListeningConfig(inverse_dynamics=0.5, contrast=1.0, contrast_share=0.5, cell_weight=2.0)


def make_module(kind: str, listening: ListeningConfig | None, **further: object):
    torch.manual_seed(0)
    module = WorldModelModule(
        KINDS[kind],
        AdamWConfig(),
        SPEC,
        ("steering", "speed_mps"),
        listening=listening,
        action_moments=MOMENTS,
        **further,
    )
    module.log = module.log_dict = lambda *args, **kwargs: None
    return module


def make_clip(batch: int = 4) -> TokenClip:
    torch.manual_seed(1)
    return TokenClip(torch.randint(0, 11, (batch, 4, 2, 4)), torch.randn(batch, 4, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_off_it_is_the_loss_of_the_network_to_the_bit(kind: str) -> None:
    off, never = make_module(kind, ListeningConfig()), make_module(kind, None)
    assert off.state_dict().keys() == never.state_dict().keys()
    assert not any(name.startswith("objective") for name in off.state_dict())
    clip = make_clip()
    losses = []
    for module in (off, never):
        torch.manual_seed(2)
        losses.append(module.training_step(clip, 0))
    assert torch.equal(*losses)
    torch.manual_seed(2)
    dropped, _ = off.conditions.draw(4, off.device)
    assert torch.equal(losses[0], off.network.loss(clip.tokens, clip.actions, dropped))


@pytest.mark.parametrize("kind", KINDS)
def test_each_term_adds_what_it_says(kind: str) -> None:
    clip, kept = make_clip(), torch.zeros(4, dtype=torch.bool)
    network = make_module(kind, None).network
    nats = network.score(clip.tokens, clip.actions).nats[:, 1:]

    def told(**terms: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        module = make_module(kind, ListeningConfig(**terms))
        torch.manual_seed(3)
        return module.objective(module.network, clip.tokens, clip.actions, kept)

    weighted, parts = told(cell_weight=3.0)
    expected = (nats * cell_weights(clip.tokens, 3.0, 1)).mean()
    torch.testing.assert_close(weighted, expected)
    torch.testing.assert_close(parts["nats"], nats.mean())
    loss, parts = told(contrast=2.0, contrast_share=1.0, contrast_margin=5.0)
    torch.manual_seed(3)
    shift = int(torch.randint(1, 4, ()))
    others = network.score(clip.tokens, clip.actions.roll(-shift, 0)).nats[:, 1:]
    expected = (5.0 - (others - nats).mean((1, 2))).mean()
    torch.testing.assert_close(parts["contrast"], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss, nats.mean() + 2 * expected, atol=1e-5, rtol=1e-4)
    loss, parts = told(inverse_dynamics=0.5)
    terms = parts["inverse_dynamics"] + parts["inverse_dynamics_real"]
    torch.testing.assert_close(loss, nats.mean() + 0.5 * terms)


@pytest.mark.parametrize("kind", KINDS)
def test_the_inverse_dynamics_learns_from_real_frames_and_teaches_the_logits(kind: str) -> None:
    module = make_module(kind, ListeningConfig(inverse_dynamics=1.0))
    head, clip = module.objective.head, make_clip()
    scaled = clip.actions[:, :3]
    logits = torch.randn(4, 3, 8, 11, requires_grad=True)
    learning, judged = head.errors(clip.tokens.flatten(2), logits, scaled, None)
    by_head = torch.autograd.grad(judged, list(head.parameters()), allow_unused=True)
    assert all(grad is None for grad in by_head)
    assert torch.autograd.grad(judged, logits, retain_graph=True)[0].abs().max() > 0
    assert torch.autograd.grad(learning, logits, allow_unused=True)[0] is None
    module.training_step(clip, 0).backward()
    assert all(p.grad is not None and p.grad.any() for p in module.trained.parameters())
    _, all_dropped = head.errors(
        clip.tokens.flatten(2), logits, scaled, torch.ones(4, dtype=torch.bool)
    )
    assert all_dropped == 0


def test_certain_predictions_are_read_as_tokens() -> None:
    torch.manual_seed(0)
    head = ActionReader(11, (2, 4), 2)
    before, after = torch.randint(0, 11, (2, 3, 8))
    one_hot = torch.nn.functional.one_hot(after, 11).float()
    torch.testing.assert_close(head(before, one_hot), head(before, after))


def test_tokens_that_change_weigh_more_and_the_mean_stays() -> None:
    tokens = torch.zeros(1, 3, 1, 4, dtype=torch.int64)
    tokens[0, 1, 0, :2] = 5
    weights = cell_weights(tokens, 1.0, 1)
    assert weights.mean() == pytest.approx(1.0)
    assert torch.equal(weights[0] / weights.min(), torch.tensor([[2.0, 2, 1, 1], [2, 2, 1, 1]]))
    assert torch.equal(cell_weights(tokens, 0.0, 1), torch.ones(1, 2, 4))


def test_rivals_are_clips_whose_actions_differ_and_are_read() -> None:
    actions = torch.tensor([0.0, 0.1, 5.0, 9.0])[:, None, None].expand(-1, 3, 1)
    torch.manual_seed(0)
    found = rivals(actions, actions, None, 1.0, 1.0)
    given = found.actions[:, 0, 0]
    assert sorted(given.tolist()) == pytest.approx([0.0, 0.1, 5.0, 9.0])
    assert torch.equal(found.counts, (given - actions[:, 0, 0]).abs() > 1.0)
    dropped = torch.tensor([False, False, True, True])
    assert not rivals(actions, actions, dropped, 1.0, 1.0).counts[2:].any()
    assert rivals(actions, actions, None, 0.5, 1.0).rows.tolist() == [0, 1]
    assert not rivals(actions[:1], actions[:1], None, 1.0, 0.1).counts.any()  # no other clip
    assert torch.equal(with_rows(actions, found.rows[:1]), torch.cat([actions, actions[:1]]))


def test_the_hinge_ends_at_the_margin_and_averages_those_that_count() -> None:
    true, other = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 1.05, 2.0])
    every = torch.ones(3, dtype=torch.bool)
    assert contrast(true, other, every, 0.1).item() == pytest.approx((0.1 + 0.05) / 3, abs=1e-6)
    one = torch.tensor([True, False, False])
    assert contrast(true, other, one, 0.1).item() == pytest.approx(0.1)
    assert contrast(true, other, ~every, 0.1) == 0


def test_it_goes_with_a_disturbed_past() -> None:
    module = make_module("gpt", EVERY, robustness=Robustness(corrupt=0.5, noise=0.5))
    assert math.isfinite(module.training_step(make_clip(), 0).item())


def test_what_does_not_support_it_is_refused() -> None:
    for network in (
        MaskedConfig(dim=24, num_layers=1, num_heads=2, context_steps=4, layout=LAYOUT),
        replace(KINDS["gpt"], layout=LayoutConfig("none")),
        replace(KINDS["gpt"], layout=LayoutConfig("binned", predict_actions=1.0)),
    ):
        with pytest.raises(BadInput, match=r"model\.listening: this"):
            WorldModelModule(network, AdamWConfig(), SPEC, ("a", "b"), listening=EVERY)
    with pytest.raises(BadInput, match="does nothing"):
        ListeningConfig(contrast=1.0, contrast_margin=0.0)
    with pytest.raises(BadInput, match=r"model\.listening\.cell_weight"):
        ListeningConfig(cell_weight=-1.0)
    assert not make_module("gpt", EVERY).shardable  # its head is in no unit
    assert make_module("gpt", ListeningConfig(cell_weight=1.0)).shardable


def test_a_run_with_all_terms_goes_on_and_its_model_opens(composed, fit) -> None:
    overrides = (
        "+debug=fast",
        "trainer.max_steps=2",
        "trainer.val_check_interval=2",
        "model.network.num_layers=2",
        "model.listening.inverse_dynamics=0.1",
        "model.listening.contrast=1.0",
        "model.listening.cell_weight=1.0",
        "data.batch_size=2",
        "data.num_val_windows=2",
        "callbacks.media=null",
    )
    module, run, _ = fit(composed("whole_tiny", *overrides))
    opened = load_world_model(run.folder).network
    for name, value in module.network.state_dict().items():
        assert torch.equal(opened.state_dict()[name], value)
    assert module.objective.head is not None
