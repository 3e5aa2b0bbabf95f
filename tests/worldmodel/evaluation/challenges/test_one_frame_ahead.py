"""1X's evaluation: the published numbers, the same whatever the batches."""

import math

import pytest
import torch
from published_files import genie_files, parity
from safetensors.torch import load_file
from tiny_gpt import make_model

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.evaluation.challenges.one_frame_ahead import (
    check_regime,
    drawn,
    first_pass,
    judge_windows,
    leaderboard_row,
    sample_frames,
)
from worldmodel.published import open_published
from worldmodel.windows import TokenClip

SPEC = TokenSpec((1, 2, 3), 12, 2.0, 1, (32, 48), "test")


def make_masked(layout: str = "none"):
    torch.manual_seed(0)
    config = MaskedConfig(
        dim=24,
        num_layers=2,
        num_heads=2,
        context_steps=4,
        num_prompt_frames=2,
        factors=(3, 4),
        layout=LayoutConfig(layout, num_bins=8),
        look_back=0,
    )
    network = build_dynamics(config, SPEC, 2).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return network


def make_clips(count: int = 5) -> TokenClip:
    torch.manual_seed(1)
    return TokenClip(torch.randint(0, 12, (count, 4, 2, 3)), torch.randn(count, 4, 2))


def in_batches(clips: TokenClip, size: int) -> list[TokenClip]:
    pairs = zip(clips.tokens.split(size), clips.actions.split(size), strict=True)
    return [TokenClip(tokens, actions) for tokens, actions in pairs]


@pytest.fixture(params=["a", "b"])
def golden(request, shared, tmp_path):
    """(network, windows, tensors) of a variant."""
    folder, said = parity(shared, "genie_stmaskgit", request.param)
    network = open_published("genie", genie_files(shared, tmp_path, request.param)).network
    io = load_file(folder / said["io"])
    video = io["eval_video"].unflatten(1, (said["eval"]["window"], *network.spec.grid[1:]))
    return network, TokenClip(video, torch.zeros(*video.shape[:2], 0)), io


def test_cross_entropy_is_the_published_one(golden):
    network, clips, io = golden
    found = first_pass(network, in_batches(clips, 1), "cpu")
    assert found.nats.shape == (len(clips.tokens), clips.tokens.shape[1] - 1)
    assert found.nats.mean() == pytest.approx(io["eval_loss"].item(), abs=1e-4)
    # By window and by frame, from the published logits.
    logits = io["eval_logits"].double().log_softmax(1)  # [B 512 2 T-1 h w]
    digits = torch.stack([clips.tokens[:, 1:] % 512, clips.tokens[:, 1:] // 512], dim=1)
    nats = -logits.gather(1, digits[:, None])[:, 0].sum(1).flatten(2).mean(-1)
    torch.testing.assert_close(torch.from_numpy(found.nats), nats, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["steps1", "steps2_random", "steps2_greedy"])
def test_sampled_frames_and_accuracy_are_the_published_ones(golden, name):
    network, clips, io = golden
    order = "random" if "random" in name else "confidence"
    frames = sample_frames(network, clips, int(name[5]), order, io["eval_noise"][:, None])
    theirs = io[f"eval_samples_{name}"]
    assert torch.equal(frames, theirs)
    share = (frames == clips.tokens[:, 1:]).float().mean()
    torch.testing.assert_close(share, io[f"eval_acc_{name}"])


@pytest.mark.parametrize("layout", ["none", "continuous"])
@pytest.mark.parametrize("order", ["random", "confidence"])
def test_batches_change_nothing(layout, order):
    network, clips = make_masked(layout), make_clips()
    names = [f"drive@{i}" for i in range(5)]
    whole = judge_windows(network, [clips], names, "cpu", 3, order)
    parts = judge_windows(network, in_batches(clips, 2), names, "cpu", 3, order)
    assert torch.equal(whole.sampled, parts.sampled)
    assert whole.nats == pytest.approx(parts.nats, rel=1e-6)
    assert (
        whole.matches == (whole.sampled == clips.tokens[:, 1:]).flatten(2).double().mean(-1).numpy()
    ).all()
    assert whole.seconds_per_frame > 0
    # Nor do other windows: the last alone is sampled as among all.
    alone = judge_windows(network, in_batches(clips, 1)[-1:], names[-1:], "cpu", 3, order)
    assert torch.equal(alone.sampled[0], whole.sampled[-1])


def test_the_seed_decides_and_a_name_has_numbers_of_its_own():
    tokens = make_clips(2).tokens
    one = drawn(["a", "b"], tokens, 2, seed=0)
    assert one.shape == (3, 2, 2, 6)
    assert torch.equal(one[:, :, 1], drawn(["b"], tokens[:1], 2, seed=0)[:, :, 0])
    assert not torch.equal(one[:, :, 0], one[:, :, 1])
    assert not torch.equal(one, drawn(["a", "b"], tokens, 2, seed=1))


def test_a_frame_sees_the_real_frames_before_it_alone():
    network, clips = make_masked(), make_clips()
    names = [str(i) for i in range(5)]
    before = judge_windows(network, [clips], names, "cpu")
    changed = clips.tokens.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 12
    after = judge_windows(network, [TokenClip(changed, clips.actions)], names, "cpu")
    assert torch.equal(after.sampled[:, :2], before.sampled[:, :2])
    assert not torch.equal(after.sampled[:, 2], before.sampled[:, 2])


def test_a_model_that_knows_nothing_scores_chance():
    network, clips = make_masked(), make_clips()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    found = first_pass(network, [clips], "cpu")
    assert found.nats == pytest.approx(math.log(12), abs=1e-6)


def make_copier(strength: float = 20.0):
    """A model that repeats the frame before: of its input, only that frame's tokens reach a head
    of the same one-hot vectors."""
    config = MaskedConfig(
        *(8, 1, 1), context_steps=4, num_prompt_frames=2, factors=(3, 4), look_back=1
    )
    network = build_dynamics(config, SPEC, 0).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        ones = torch.eye(7, 8)
        network.embeds[0].weight.copy_(ones[:3])
        network.embeds[1].weight.copy_(ones[3:])
        network.head.weight.copy_(strength * ones)
    return network


def test_a_model_that_copies_scores_what_stays():
    clips = make_clips()
    tokens = clips.tokens.clone()
    tokens[:, 1:, 0] = tokens[:, :-1, 0].clone()  # some cells stay, all else is by chance
    tokens[0] = tokens[0, :1]  # a window that stands still
    names = [str(i) for i in range(5)]
    found = judge_windows(make_copier(), [TokenClip(tokens, clips.actions)], names, "cpu")
    assert torch.equal(found.sampled, tokens[:, :-1])
    same = (tokens[:, 1:] == tokens[:, :-1]).flatten(2).double().mean(-1)
    torch.testing.assert_close(torch.from_numpy(found.matches), same)
    assert found.correct == pytest.approx(same.numpy())
    assert found.nats[0] == pytest.approx(0, abs=1e-6)
    # Each factor that differs costs its strength, each that stays nothing.
    digits = torch.stack([tokens % 3, tokens // 3], dim=-1)
    wrong = (digits[:, 1:] != digits[:, :-1]).sum(-1).flatten(2).double().mean(-1)
    assert found.nats == pytest.approx(20 * wrong.numpy(), abs=1e-3)


def test_another_regime_is_refused():
    with pytest.raises(BadInput, match="a GPT predicts a token from real tokens of the same frame"):
        check_regime(make_model(), "card=onex")
    assert check_regime(make_masked(), "card=onex")


def test_the_row_of_the_leaderboard():
    assert leaderboard_row("GENIE_138M", 8.786, 0.03204, 0.2071, 0.0751) == (
        "| GENIE_138M | 8.79 | 0.0320 | 0.207 | 0.075 |"
    )
    assert leaderboard_row("mine", 9.0, None, None, None) == "| mine | 9.00 | - | - | - |"
