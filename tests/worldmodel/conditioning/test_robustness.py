"""Disturbed contexts: the network reads them, the targets stay, every setting does something."""

from dataclasses import replace

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.config import AdamWConfig
from training.errors import BadInput
from worldmodel.conditioning.robustness import Robustness
from worldmodel.dynamics.gpt.model import GPT, GPTConfig
from worldmodel.module import WorldModelModule
from worldmodel.windows import TokenClip

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
CONFIG = GPTConfig(dim=24, num_layers=2, num_heads=2, context_steps=5, tie_embeddings=False)


def make_model(**values) -> GPT:
    torch.manual_seed(0)
    return GPT(replace(CONFIG, **values), SPEC, 0)


def make_tokens(batch: int = 3) -> torch.Tensor:
    return torch.randint(0, 11, (batch, 5, 2, 3), generator=torch.Generator().manual_seed(1))


def test_the_context_is_read_and_the_tokens_are_predicted() -> None:
    model, tokens = make_model(), make_tokens()
    context = (tokens + 1) % 11
    logits = model(context)
    expected = torch.nn.functional.cross_entropy(
        logits[:, 1:].flatten(0, 2), tokens[:, 1:].flatten()
    )
    torch.testing.assert_close(model.loss(tokens, context=context), expected)
    assert model.loss(tokens, context=context) != model.loss(tokens)


def test_corruption_replaces_up_to_its_share_of_every_example() -> None:
    model, tokens = make_model(), make_tokens(2000)
    torch.manual_seed(0)
    changed = Robustness(corrupt=0.6).change(model, tokens)
    assert list(changed) == ["context"]
    share = (changed["context"] != tokens).flatten(1).float().mean(1)
    assert share.mean().item() == pytest.approx(0.3 * 10 / 11, abs=0.02)  # one in 11 stays
    assert share.std() > 0.12  # the level differs between examples: 0.6 / sqrt(12) at least
    assert Robustness().change(model, tokens) == {}


def test_self_fed_frames_are_samples_of_the_model_in_place_of_counted_frames() -> None:
    model, tokens = make_model(), make_tokens(64)
    model.head.weight.data.zero_()  # every token is as likely
    torch.manual_seed(0)
    context = Robustness(self_fed_frames=2).change(model, tokens)["context"]
    changed = (context != tokens).flatten(2).any(-1)
    assert not changed[:, 0].any()
    assert changed.sum(1).max() == 2
    assert changed[:, 1:].float().mean(0).min() > 0.3  # any frame may be the one
    counts = context[:, 1:][changed[:, 1:]].flatten().bincount(minlength=11).float()
    assert (counts / counts.sum() - 1 / 11).abs().max() < 0.04


def test_self_fed_frames_follow_the_logits() -> None:
    model, tokens = make_model(), make_tokens(16).clamp(max=5)
    model.norm = torch.nn.LayerNorm(24)
    model.norm.weight.data.zero_()
    model.norm.bias.data.fill_(1.0)  # the last state is ones, whatever is read
    model.head.weight.data.zero_()
    model.head.weight.data[9] = 5.0
    context = Robustness(self_fed_frames=4).change(model, tokens)["context"]
    assert (context[:, 1:] == 9).all()
    assert torch.equal(context[:, 0], tokens[:, 0])


@pytest.mark.parametrize("look_back", [0, 3])
def test_noise_changes_what_is_read_by_its_level(look_back: int) -> None:
    model, tokens = make_model(look_back=look_back), make_tokens()
    far = []
    for level in (0.0, 0.1, 1.0):
        torch.manual_seed(2)
        logits = model(tokens, noise=torch.full((3,), level))
        far.append((logits - model(tokens)).abs().mean().item())
    assert far[0] == 0
    assert 0 < 3 * far[1] < far[2]


def test_the_network_is_told_the_level_and_none_at_level_zero() -> None:
    model, tokens = make_model(noise_levels=4), make_tokens()
    model.noise.level.weight.data[1:] += 1.0
    assert torch.equal(model(tokens, noise=torch.zeros(3)), model(tokens))
    torch.manual_seed(2)
    told = model(tokens, noise=torch.full((3,), 1e-3))
    torch.manual_seed(2)
    untold = make_model()
    untold.load_state_dict(model.state_dict(), strict=False)
    assert (told - untold(tokens, noise=torch.full((3,), 1e-3))).abs().mean() > 0.01
    model.loss(tokens, noise=torch.full((3,), 0.3)).backward()
    assert model.noise.level.weight.grad is not None
    used = model.noise.level.weight.grad.abs().sum(1) > 0
    assert used.tolist() == [False, False, True, False, False]  # 0.3 of 4 levels is the second


@pytest.mark.parametrize("setting", [{"corrupt": 0.5}, {"noise": 2.0}, {"self_fed_frames": 2}])
def test_the_module_trains_as_it_is_told(setting: dict) -> None:
    losses = []
    for robustness in (None, Robustness(**setting)):
        torch.manual_seed(0)
        module = WorldModelModule(CONFIG, AdamWConfig(), SPEC, (), 0.0, robustness=robustness)
        module.eval()
        losses.append(module.training_step(TokenClip(make_tokens(), torch.zeros(3, 5, 0)), 0))
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"corrupt": 1.5}, "corrupt=1.5"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"self_fed_frames": -1}, "self_fed_frames=-1"),
        ({"self_fed_frames": 5}, "give 4 at most"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Robustness(**setting).check(make_model())


def test_a_kind_that_takes_no_context_says_so() -> None:
    model = make_model()
    model.reads = ()
    Robustness().check(model)
    with pytest.raises(BadInput, match="GPT takes no context of its own"):
        Robustness(corrupt=0.1).check(model)
