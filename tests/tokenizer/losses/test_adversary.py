"""A discriminator apart from what it judges: it learns to tell, and leaves no gradient behind."""

from types import SimpleNamespace

import pytest
import torch

from tokenizer.losses.adversary import Adversary
from tokenizer.losses.config import AdversaryConfig, LossConfig
from training.errors import BadInput

SMALL = AdversaryConfig(
    discriminator_channels=8, discriminator_layers=1, discriminator_lr=1e-2, lecam_weight=0.01
)


def trainer_of(adversary: Adversary) -> SimpleNamespace:
    """What `Adversary.step` asks of a Lightning module."""
    steps = [None, adversary.optimizer()]
    return SimpleNamespace(
        optimizers=lambda use_pl_optimizer: steps,
        manual_backward=lambda loss: loss.backward(),
        accumulate=1,
        global_step=1,
    )


def test_a_discriminator_learns_to_tell_and_its_gradient_shows_where():
    torch.manual_seed(0)
    adversary = Adversary(SMALL, num_frames=2)
    module, real = trainer_of(adversary), torch.rand(4, 6, 16, 16)
    fake = -real
    gaps = []
    for _ in range(20):
        logs = adversary.step(module, real, fake)
        gaps.append(float(logs["logits_real"] - logs["logits_fake"]))
    assert gaps[-1] > gaps[0] + 0.5
    assert logs.keys() == {"lecam", "d_loss", "logits_real", "logits_fake"}
    seen = fake.unflatten(1, (2, 3)).requires_grad_()
    weights = [p.clone() for p in adversary.discriminator.parameters()]
    gradient, said = adversary.gradient(
        seen,
        torch.ones_like(seen),
        lambda pixels: pixels.sum((0, 1))[:, None],
        lambda frames: frames.flatten(1, 2),
    )
    better = adversary.discriminator((seen - gradient.sign() * 0.1).flatten(1, 2)).mean()
    assert better > -said["g_loss"]
    assert all(p.grad is None for p in adversary.discriminator.parameters())
    assert all(map(torch.equal, weights, adversary.discriminator.parameters()))


def test_gradients_are_accumulated_until_the_optimizer_moves():
    torch.manual_seed(0)
    adversary = Adversary(SMALL)
    module, real = trainer_of(adversary), torch.rand(2, 3, 16, 16)
    before = [p.clone() for p in adversary.discriminator.parameters()]
    adversary.step(module, real, -real, moves=False)
    assert all(map(torch.equal, before, adversary.discriminator.parameters()))
    assert any(p.grad is not None and p.grad.any() for p in adversary.discriminator.parameters())
    adversary.step(module, real, -real)
    assert not all(map(torch.equal, before, adversary.discriminator.parameters()))
    assert all(p.grad is None for p in adversary.discriminator.parameters())


def test_it_joins_at_its_step():
    adversary = Adversary(AdversaryConfig(gan_start=3, discriminator_channels=8))
    assert [adversary.has_joined(step) for step in (0, 2, 3, 4)] == [False, False, True, True]


def test_a_refusal_names_the_setting_where_it_is_typed():
    with pytest.raises(BadInput, match=r"model\.gan_start=-1"):
        AdversaryConfig(gan_start=-1)
    with pytest.raises(BadInput, match=r"model\.loss\.gan_start=-1"):
        LossConfig(gan_start=-1)
