"""Every term of the loss against published numbers or its definition, and absent at weight 0."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from tokenizer.config import TokenizerModuleConfig
from tokenizer.losses.config import LossConfig
from tokenizer.losses.perceptual_features import (
    LAYER_WEIGHTS,
    backbone_features,
    feature_distance,
    gram,
    gram_distance,
    shifted,
)
from tokenizer.losses.terms import (
    DISCRIMINATOR_LOSSES,
    LeCam,
    adaptive_weight,
    generator_loss,
    hinge_discriminator_loss,
    non_saturating_loss,
)
from tokenizer.module import TokenizerModule
from tokenizer.networks.config import AutoencoderConfig
from tokenizer.networks.discriminator import PatchDiscriminator
from tokenizer.quantizers.config import LFQConfig
from tokenizer.quantizers.lfq import LFQ
from training.config import AdamWConfig
from training.errors import BadInput

CLOSE = {"rtol": 1e-4, "atol": 1e-6}
OFF = {"pixel_weight": 1.0, "perceptual_weight": 0.0, "gan_weight": 0.0}


class Published:
    """Fixtures of taming's and Open-MAGVIT2's losses, and a discriminator with their weights."""

    def __init__(self, folder) -> None:
        self.io = load_file(folder / "io.safetensors")
        config = json.loads((folder / "config.json").read_text())
        self.loss, self.m2 = config["loss"], config["m2"]
        weights = load_file(folder / "weights.safetensors")
        names = {k.removeprefix("discriminator."): v for k, v in weights.items()}
        layers = sum(name.endswith("running_mean") for name in names)
        self.discriminator = PatchDiscriminator(len(names["main.0.weight"]), layers)
        self.discriminator.load_state_dict(names)
        self.last = self.io["last_layer_weight"].clone().requires_grad_()
        self.recon = F.conv2d(self.io["hidden"], self.last, self.io["last_layer_bias"], padding=1)
        squared = (self.io["inputs"] - self.recon).square().mean((1, 2, 3))
        self.l1, self.p = (self.io["inputs"] - self.recon).abs().mean(), squared.mean()

    def __getitem__(self, key):
        return self.io[key]

    def gradient(self, loss):
        return torch.autograd.grad(loss, self.last, retain_graph=True)[0]


@pytest.fixture
def published(shared):
    return Published(shared / "parity/vqgan_losses")


@pytest.mark.parametrize(("prefix", "kind"), [("hinge", "hinge"), ("vanilla", "logistic")])
def test_the_discriminator_s_step_equals_upstream(published, prefix, kind):
    discriminator = published.discriminator
    discriminator(published.recon)  # the generator's look at it moves BatchNorm's averages
    real = discriminator(published["inputs"])
    fake = discriminator(published.recon.detach())
    loss = DISCRIMINATOR_LOSSES[kind](real, fake)
    torch.testing.assert_close(loss, published[f"{prefix}_after_disc_loss"], **CLOSE)
    loss.backward()
    for name, parameter in discriminator.named_parameters():
        expected = published[f"{prefix}_after_disc_grad.{name}"]
        torch.testing.assert_close(parameter.grad, expected, **CLOSE)
    for name, buffer in discriminator.named_buffers():
        if "running" in name:
            expected = published[f"hinge_after_disc_after.{name}"]
            torch.testing.assert_close(buffer, expected, **CLOSE)


def test_the_generator_s_total_equals_upstream(published):
    nll = published.loss["pixelloss_weight"] * published.l1
    nll = nll + published.loss["perceptual_weight"] * published.p
    adversarial = generator_loss(published.discriminator(published.recon))
    weight = adaptive_weight(published.gradient(nll), published.gradient(adversarial))
    total = nll + published.loss["disc_weight"] * weight * adversarial
    torch.testing.assert_close(total, published["hinge_after_gen_total"], **CLOSE)
    gradient, expected = published.gradient(total), published["hinge_after_gen_grad_last_layer"]
    torch.testing.assert_close(gradient, expected, **CLOSE)


@pytest.mark.parametrize("flavour", ["fixed", "adaptive"])
def test_the_generator_of_open_magvit2_equals_upstream(published, flavour):
    m2, nll = published.m2, published.l1 + published.p
    torch.testing.assert_close(nll, published[f"m2_{flavour}_gen_nll_loss"], **CLOSE)
    adversarial = non_saturating_loss(published.discriminator(published.recon))
    weight = torch.tensor(m2["gen_loss_weight"])
    if flavour == "adaptive":
        gradients = published.gradient(nll), published.gradient(adversarial)
        weight = m2["disc_weight"] * adaptive_weight(*gradients)
    torch.testing.assert_close(weight, published[f"m2_{flavour}_gen_d_weight"], **CLOSE)
    torch.testing.assert_close(weight * adversarial, published[f"m2_{flavour}_gen_g_loss"], **CLOSE)
    # The quantizer's side: its terms as this config weighs them.
    entropy, commitment = published["m2_codebook_loss"], published["m2_commitment"]
    features = m2["codebook_weight"] * entropy + m2["commit_weight"] * commitment
    total = nll + weight * adversarial + features
    torch.testing.assert_close(total, published[f"m2_{flavour}_gen_total"], **CLOSE)
    gradient = published.gradient(total)
    expected = published[f"m2_{flavour}_gen_grad_last_layer"]
    torch.testing.assert_close(gradient, expected, **CLOSE)


def test_lecam_equals_upstream_over_two_steps(published):
    lecam = LeCam(published.m2["lecam_decay"])
    recon = published.recon.detach()
    for number, flip in enumerate((False, True), 1):
        frames = published["inputs"].flip(-1) if flip else published["inputs"]
        real_logits, fake_logits = published.discriminator(frames), published.discriminator(recon)
        term = lecam(real_logits, fake_logits)
        prefix = f"m2_disc{number}"
        torch.testing.assert_close(lecam.real, published[f"{prefix}_ema_real"], **CLOSE)
        torch.testing.assert_close(lecam.fake, published[f"{prefix}_ema_fake"], **CLOSE)
        torch.testing.assert_close(term, published[f"{prefix}_lecam"], **CLOSE)
        loss = hinge_discriminator_loss(real_logits, fake_logits)
        loss = loss + published.m2["lecam_loss_weight"] * term
        torch.testing.assert_close(loss, published[f"{prefix}_loss"], **CLOSE)
    assert lecam.state_dict().keys() == {"real", "fake"}


def test_lecam_remembers_no_step_that_is_not_finite():
    lecam, logits = LeCam(0.9), torch.ones(1, 1, 2, 2)
    lecam(logits, -logits)
    lecam(logits * float("nan"), -logits)
    torch.testing.assert_close(lecam.real, torch.tensor(0.1))
    torch.testing.assert_close(lecam.fake, torch.tensor(-0.19))


def module_of(quantizer=None, **loss) -> TokenizerModule:
    torch.manual_seed(0)
    autoencoder = AutoencoderConfig((32, 32), quantizer or LFQConfig(4), 2, (16, 16))
    return TokenizerModule(autoencoder, LossConfig(**{**OFF, **loss}), AdamWConfig())


@pytest.fixture
def frames():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1


def terms(module, frames, step=0):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenizerModule, "global_step", property(lambda self: step))
        total, logs = module.reconstruction_loss(frames, frames.flip(0))
    return total.item(), {name: value.item() for name, value in logs.items()}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, {"l1"}),
        ({"pixel_weight": 0.0, "l2_weight": 2.0}, {"l2"}),
        ({"perceptual_weight": 0.5}, {"l1", "lpips"}),
        ({"features_weight": 0.1}, {"l1", "features"}),
        ({"gram_weight": 0.3}, {"l1", "gram"}),
    ],
)
def test_a_term_is_there_with_its_weight_or_not_at_all(settings, names, frames):
    total, logs = terms(module_of(**settings), frames)
    assert logs.keys() == names
    weights = {"l1": "pixel", "lpips": "perceptual"}
    config = LossConfig(**{**OFF, **settings})
    expected = sum(
        getattr(config, f"{weights.get(name, name)}_weight") * value for name, value in logs.items()
    )
    assert total == pytest.approx(expected, rel=1e-5)
    difference = frames - frames.flip(0)
    for name, value in (("l1", difference.abs().mean()), ("l2", difference.square().mean())):
        if name in logs:
            assert logs[name] == pytest.approx(value.item())


def test_the_gram_term_joins_at_its_step(frames):
    module = module_of(gram_weight=0.3, gram_start=5)
    assert terms(module, frames, step=4)[1].keys() == {"l1"}
    assert terms(module, frames, step=5)[1].keys() == {"l1", "gram"}


def test_features_and_grams_are_what_their_definition_says(frames):
    perceptual = module_of().perceptual
    real, fake = (backbone_features(perceptual, x) for x in (frames, frames.flip(0)))
    assert len(real) == len(LAYER_WEIGHTS) == 5
    means = [(a - b).abs().mean().item() for a, b in zip(real, fake, strict=True)]
    expected = sum(w * m for w, m in zip(LAYER_WEIGHTS, means, strict=True))
    assert feature_distance(real, fake).item() == pytest.approx(expected)
    one = real[0][1]
    by_hand = torch.einsum("chw,dhw->cd", one, one) / one[0].numel()
    torch.testing.assert_close(gram(real[0])[1], by_hand)
    assert gram_distance(real, real) == 0
    shuffled = [x.flatten(2).flip(-1).view_as(x) for x in real]  # texture without places
    assert gram_distance(real, shuffled).item() < 1e-6 < feature_distance(real, shuffled).item()


def test_the_backbone_sees_both_images_shifted_alike_and_nothing_else_does(frames):
    module = module_of(perceptual_weight=1.0, features_weight=0.1, perceptual_shift=3)
    for seed in range(3):
        torch.manual_seed(seed)
        _, logs = terms(module, frames)
        torch.manual_seed(seed)
        real, fake = shifted(frames, frames.flip(0), 3)
        assert logs["lpips"] == pytest.approx(module.perceptual(fake, real).mean().item())
        pair = (backbone_features(module.perceptual, x) for x in (real, fake))
        assert logs["features"] == pytest.approx(feature_distance(*pair).item())
        assert logs["l1"] == pytest.approx((frames - frames.flip(0)).abs().mean().item())


def test_a_shift_is_random_in_both_directions_and_reaches_its_maximum(frames):
    torch.manual_seed(0)
    seen = set()
    for _ in range(200):
        real, fake = shifted(frames, frames + 1, 3)
        down, right = real.shape[-2] - 64, real.shape[-1] - 64
        assert torch.equal(real[..., down:, right:], frames)
        assert torch.equal(fake, real + 1)
        seen.add((down, right))
    assert seen == {(down, right) for down in range(4) for right in range(4)}


def test_without_a_shift_no_random_number_is_drawn(frames):
    module = module_of(perceptual_weight=1.0)
    before = torch.get_rng_state()
    terms(module, frames)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_shift_of_a_whole_frame_is_refused():
    network = AutoencoderConfig((32, 64), LFQConfig(4), 2, (16, 16))
    with pytest.raises(BadInput, match=r"perceptual_shift=32.*32 pixels"):
        TokenizerModuleConfig(
            network=network, loss=LossConfig(perceptual_shift=32), optimizer=AdamWConfig()
        )


def test_without_a_weight_there_is_no_discriminator():
    without, with_it = module_of(), module_of(gan_weight=0.1, lecam_weight=0.01)
    assert without.adversary is None
    assert not [name for name in without.state_dict() if "discriminator" in name]
    assert {"lecam.real", "lecam.fake"} <= with_it.state_dict().keys()
    assert module_of(gan_weight=0.1).adversary.lecam is None


def test_the_settings_of_the_adversary_reach_its_gradient(frames):
    seen = frames.clone().requires_grad_()
    gradients = {}
    for name, changes in {
        "": {},
        "fixed": {"gan_adaptive": False},
        "twice": {"gan_adaptive": False, "gan_weight": 0.2},
        "soft": {"gan_adaptive": False, "gan_generator": "non_saturating"},
    }.items():
        module = module_of(**{"gan_weight": 0.1, **changes})
        module.autoencoder(frames[..., :32, :32])
        last_layer = module.autoencoder.decoder.last_layer_gradient
        gan_grad, logs = module.adversary.gradient(
            seen[..., :32, :32], torch.ones(2, 3, 32, 32), last_layer
        )
        gradients[name] = gan_grad
        if name in ("fixed", "soft"):
            assert logs["gan_weight"] == pytest.approx(0.1)
    torch.testing.assert_close(2 * gradients["fixed"], gradients["twice"])
    for name in ("", "soft"):
        assert not torch.allclose(gradients[name], gradients["fixed"], rtol=0.01)


def critic_loss(frames, **changes) -> float:
    module, losses = module_of(gan_weight=0.1, **changes), []
    module.optimizers = lambda **_: [None, None]
    module.log = module.log_dict = lambda *_, **__: None
    module.manual_backward = losses.append
    module.discriminator_step(frames, frames.flip(0) / 2, step=False)
    return losses[0].item()


def test_the_settings_of_the_adversary_reach_its_own_loss(frames):
    hinge = critic_loss(frames)
    assert critic_loss(frames, gan_discriminator="logistic") != pytest.approx(hinge, rel=0.1)
    once, twice = (critic_loss(frames, lecam_weight=weight) - hinge for weight in (1.0, 2.0))
    assert 0 < 2 * once == pytest.approx(twice, rel=1e-3)
    short = critic_loss(frames, lecam_weight=1.0, lecam_decay=0.5) - hinge
    assert short != pytest.approx(once, rel=1e-3)


def test_terms_of_a_quantizer_are_those_of_its_config(frames):
    module = module_of(LFQConfig(4, entropy_weight=0.5))
    _, quantized = module.autoencoder(frames[..., :32, :32])
    assert isinstance(module.autoencoder.quantizer, LFQ)
    assert module.feature_terms(frames, quantized).keys() == {"entropy", "commitment"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l2_weight": -1.0}, r"model\.loss\.l2_weight=-1\.0"),
        ({"gan_generator": "wgan"}, r"gan_generator='wgan': choose one of hinge"),
        ({"gan_discriminator": "wgan"}, r"gan_discriminator='wgan'"),
        ({"perceptual_net": "resnet"}, r"perceptual_net='resnet'"),
        ({"features_weight": 0.1, "perceptual_net": ""}, "choose vgg"),
        ({"pixel_weight": 0.0, "perceptual_weight": 0.0}, "nothing compares the pixels"),
        ({"distillation_weight": 0.1}, r"names no model\.loss\.teacher"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        LossConfig(**settings)


def test_everything_frozen_stays_out_of_the_module():
    module = module_of(features_weight=0.1)
    assert isinstance(module.perceptual.network, nn.Module)
    assert not [name for name in module.state_dict() if "perceptual" in name]
