"""The whole-frame kind: what a cell may see, conditioning, counts, and what it refuses."""

import math
from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.config import AdamWConfig
from training.errors import BadInput
from training.optimization.optimizers import build_optimizer
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.dynamics.whole_frame.model import WholeFrame
from worldmodel.evaluation.action_use import action_use
from worldmodel.known_entropy.world import KnownEntropyWorld
from worldmodel.windows import TokenClip

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
LAYOUTS = ["none", "continuous", "binned"]
CONFIG = WholeFrameConfig(dim=24, num_layers=4, num_heads=2, context_steps=4)


def make_model(layout: str = "continuous", **changes: object) -> WholeFrame:
    torch.manual_seed(0)
    config = replace(CONFIG, layout=LayoutConfig(layout, num_bins=8), **changes)
    return build_dynamics(config, SPEC, 2).eval()


def make_clip(time: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 11, (2, time, 2, 3)), torch.randn(2, time, 2)


def change_of_logits(model: WholeFrame, step: int, cell: int) -> torch.Tensor:
    """How much every cell's logits change with one token: [time space]."""
    tokens, actions = make_clip()
    changed = tokens.flatten(2).clone()
    changed[:, step, cell] = (changed[:, step, cell] + 1) % 11
    difference = model(changed.view_as(tokens), actions) - model(tokens, actions)
    return difference.abs().amax(dim=(0, 3))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_frame_sees_all_of_the_frames_before_it_and_none_of_itself(layout: str) -> None:
    change = change_of_logits(make_model(layout), step=1, cell=3)
    assert change[:2].max() == 0
    assert change[2:].min() > 0


def test_inner_layers_also_see_the_cells_before_in_raster_order() -> None:
    change = change_of_logits(make_model(inner_layers=1), step=1, cell=3)
    assert max(change[0].max(), change[1, :4].max()) == 0
    assert min(change[1, 4:].min(), change[2:].min()) > 0


def test_options_change_the_network() -> None:
    tokens, actions = make_clip()
    base, plain = make_model(), make_model(look_back=0)
    assert base.num_parameters() - plain.num_parameters() == 9 * 24 * 24
    noisy = make_model(dropout=0.5).train()
    assert not torch.equal(noisy(tokens, actions), noisy(tokens, actions))
    assert torch.equal(noisy.eval()(tokens, actions), base(tokens, actions))
    thin = make_model(mlp_ratio=2.0)
    assert base.num_parameters() - thin.num_parameters() == 4 * 2 * 2 * 24 * 24
    late = build_dynamics(
        replace(CONFIG, layout=LayoutConfig("none", first_target_step=2)), SPEC, 0
    ).eval()
    nats = late.score(tokens).nats
    torch.testing.assert_close(late.loss(tokens), nats[:, 2:].mean())
    assert not math.isclose(late.loss(tokens).item(), nats[:, 1:].mean().item(), rel_tol=1e-4)


def test_initialisation_follows_the_table() -> None:
    for name, parameter in make_model(dim=96, inner_layers=2).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 1:
            assert (parameter == 1).all(), name
        else:
            expected = 0.5 / math.sqrt(parameter[0].numel())
            if name.endswith(("attention.proj.weight", "down.weight")):
                expected /= math.sqrt(2 * 6)
            elif name == "look_back.weight":
                expected *= 4
            assert parameter.std().item() == pytest.approx(expected, rel=0.15), name


def test_the_recipe_is_of_the_class_of_five_million_parameters() -> None:
    with torch.device("meta"):
        model = build_dynamics(
            WholeFrameConfig(), TokenSpec((1, 8, 16), 1024, 20.0, 1, (128, 256), "c"), 0
        )
    blocks = 6 * (12 * 256**2 + 2 * 256 + 2 * 64)
    embeddings = (1025 + 128 + 8) * 256
    assert model.num_parameters() == blocks + embeddings + 9 * 256**2 + 256
    assert model.num_parameters(embeddings=False) == model.num_parameters() - (1 + 128 + 8) * 256
    assert 5e6 < model.num_parameters() < 6e6


@pytest.mark.parametrize("inner_layers", [0, 2])
def test_flops_count_matches_a_profile_of_forward_and_backward(inner_layers: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = make_model("none", dim=96, inner_layers=inner_layers)
    tokens, _ = make_clip()
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model.loss(tokens).backward()
    assert counter.get_total_flops() == pytest.approx(model.flops(2, 4), rel=0.1)
    skipped = model.flops(2, 4) - model.flops(2, 4, causal=True)
    assert skipped == 2 * 4 * 6 * 12 * 96 * (2 * 4 + inner_layers * 6) / 2


def test_recomputing_activations_changes_no_gradient() -> None:
    model = make_model(inner_layers=1)
    tokens, actions = make_clip()
    grads = []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        model.loss(tokens, actions).backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("inner_layers", [0, 1])
def test_compiles_without_a_graph_break(inner_layers: int) -> None:
    model = make_model(inner_layers=inner_layers)
    tokens, actions = make_clip()
    compiled = torch.compile(model.loss, fullgraph=True)
    torch.testing.assert_close(
        compiled(tokens, actions), model.loss(tokens, actions), atol=1e-4, rtol=1e-4
    )


def test_it_is_described_and_refuses() -> None:
    config = replace(CONFIG, inner_layers=2, layout=LayoutConfig("binned"))
    assert from_description(describe(config)) == config
    assert config.without_actions().layout.actions == "none"
    model = make_model()
    tokens, actions = make_clip(5)
    with pytest.raises(BadInput, match="5 frames, but the model sees 1 to 4"):
        model(tokens, actions)
    with pytest.raises(BadInput, match="actions of shape"):
        model(tokens[:, :3], actions[..., :1])
    with pytest.raises(BadInput, match="tokens of shape"):
        model(tokens[:, :3].transpose(2, 3), actions)
    with pytest.raises(BadInput, match="needs actions"):
        model(tokens[:, :3])
    for settings in (
        {"dim": 25},
        {"num_layers": 1},
        {"inner_layers": -1},
        {"look_back": 2},
        {"dropout": 1.0},
        {"context_steps": 1},
        {"layout": LayoutConfig("binned", predict_actions=1.0)},
    ):
        with pytest.raises(BadInput):
            replace(CONFIG, **settings)


def train(model: WholeFrame, world: KnownEntropyWorld, num_steps: int) -> None:
    """Minimise the loss on windows of many drives: with few, noise is learned too."""
    drives = [world.sample(1000, [0, 0, number]) for number in range(96)]
    tokens = torch.stack([torch.from_numpy(drive[0].astype("int64")) for drive in drives])
    actions = torch.stack([torch.from_numpy(drive[1]) for drive in drives])
    config = AdamWConfig(lr=3e-3, weight_decay=0.01, min_lr_ratio=0.02)
    optimizer, schedule = build_optimizer(model, config, num_steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        drive = torch.randint(0, len(drives), (16, 1), generator=generator)
        step = torch.randint(0, 997, (16, 1), generator=generator) + torch.arange(4)
        loss = model.loss(tokens[drive, step], actions[drive, step])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("layout", "inner_layers", "num_steps"),
    [
        pytest.param("continuous", 0, 700, marks=pytest.mark.slow),
        pytest.param("none", 0, 400, marks=pytest.mark.slow),
        pytest.param("none", 2, 1800, marks=pytest.mark.long),
    ],
)
def test_reaches_the_optimum_of_its_kind(layout: str, inner_layers: int, num_steps: int) -> None:
    """Independent cells reach H1 with actions and, without, HP but no less; inner layers H0."""
    world = KnownEntropyWorld()
    torch.manual_seed(0)
    config = WholeFrameConfig(48, 2, inner_layers, 3, context_steps=4)
    model = build_dynamics(replace(config, layout=LayoutConfig(layout)), world.spec, 1)
    train(model, world, num_steps)
    drive, rows = world.sample(4000, [0, 1, 0])
    clips, yaws = drive.reshape(-1, 4, 4, 4), rows.reshape(-1, 4, 1)
    tokens, actions = torch.from_numpy(clips.astype("int64")), torch.from_numpy(yaws)
    with torch.no_grad():
        reached = model.eval().score(tokens, actions).nats[:, 1:].mean().item()
    if layout == "continuous":
        assert reached == pytest.approx(world.optimal_nll(clips, yaws).mean(), rel=0.02)
        use = action_use(model, [TokenClip(tokens, actions)], "cpu")
        assert use["shuffled"] * math.log(2) == pytest.approx(world.shuffled_penalty(), rel=0.1)
        straight = 0.6 / 0.66 * world.shuffled_penalty()  # P(a != 0) in place of P(a != a')
        assert use["zeroed"] * math.log(2) == pytest.approx(straight, rel=0.1)
        return
    optimal = world.optimal_nll(clips) if inner_layers else world.product_nll(clips)
    expected = world.entropy(with_actions=False) if inner_layers else world.entropy_product()
    assert optimal.mean() == pytest.approx(expected, rel=0.02)
    assert reached == pytest.approx(optimal.mean(), rel=0.02)
    assert reached > 0.995 * optimal.mean()
