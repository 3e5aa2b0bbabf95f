"""The tokenizer's training step: two optimizers that leave each other alone."""

import json

import torch

from tokenizer.load import export_tokenizer, load_tokenizer
from tokenizer.losses.terms import adaptive_weight, generator_loss, hinge_discriminator_loss
from training.checkpoints.folder import newest_first, read_weights

SMALL = [
    "+debug=fast",
    "trainer.max_steps=6",
    "trainer.val_check_interval=6",
    "trainer.log_every_n_steps=1",
    "checkpoints.every_steps=6",
    "model.loss.gan_start=3",
    "callbacks.media=null",
]


def grads(module):
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def same(a, b):
    return all(
        (x is None and y is None) or (x is not None and y is not None and torch.equal(x, y))
        for x, y in zip(a, b, strict=True)
    )


def test_neither_step_leaves_a_gradient_in_the_other_network(composed, fit, monkeypatch):
    from tokenizer.module import TokenizerModule

    steps = {"generator": 0, "discriminator": 0}
    generator_step, discriminator_step = (
        TokenizerModule.generator_step,
        TokenizerModule.discriminator_step,
    )

    def watched_generator(self, frames, *rest):
        before, weights = (
            grads(self.discriminator),
            [p.clone() for p in self.autoencoder.parameters()],
        )
        fake = generator_step(self, frames, *rest)
        steps["generator"] += 1
        assert same(before, grads(self.discriminator))
        moved = [
            not torch.equal(a, b)
            for a, b in zip(weights, self.autoencoder.parameters(), strict=True)
        ]
        assert any(moved)
        assert all(p.requires_grad for p in self.discriminator.parameters())
        return fake

    def watched_discriminator(self, frames, fake, *rest):
        before, weights = (
            grads(self.autoencoder),
            [p.clone() for p in self.autoencoder.parameters()],
        )
        discriminator_step(self, frames, fake, *rest)
        steps["discriminator"] += 1
        assert same(before, grads(self.autoencoder))
        assert all(
            torch.equal(a, b) for a, b in zip(weights, self.autoencoder.parameters(), strict=True)
        )

    monkeypatch.setattr(TokenizerModule, "generator_step", watched_generator)
    monkeypatch.setattr(TokenizerModule, "discriminator_step", watched_discriminator)
    module, run, trainer = fit(composed("tokenizer_tiny", *SMALL))
    # The discriminator joins at gan_start, and both count as one global step.
    assert steps == {"generator": 6, "discriminator": 3}
    assert trainer.global_step == 6
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    gan = [row["step"] for row in rows if "train/g_loss" in row]
    assert gan == [4, 5, 6]
    lpips = [key for key in module.state_dict() if "perceptual" in key or "lpips" in key]
    assert lpips == []
    assert not any(p.requires_grad for p in module.perceptual.parameters())


def test_the_averaged_weights_are_what_is_exported_and_used(composed, fit, tmp_path):
    module, run, _ = fit(composed("tokenizer_tiny", *SMALL, "model.ema_decay=0.5"))
    pairs = zip(module.autoencoder.parameters(), module.ema.module.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    opened = load_tokenizer(run.folder)
    for name, value in module.ema.module.state_dict().items():
        assert torch.equal(value, opened.network.state_dict()[name])
    checkpoint = newest_first(run.folder)[0]
    export_tokenizer(checkpoint, tmp_path / "export")
    weights = read_weights(tmp_path / "export")
    assert all(key.startswith("ema.module.") for key in weights)
    assert {str(v.dtype) for v in weights.values() if v.is_floating_point()} == {"torch.float16"}
    frames = torch.rand(2, 3, 64, 64) * 2 - 1
    exported = load_tokenizer(tmp_path / "export").decode(opened.encode(frames))
    torch.testing.assert_close(exported, opened.decode(opened.encode(frames)), atol=0.02, rtol=0)
    assert str(run.folder) in (checkpoint / "manifest.json").read_text()
    assert str(run.folder) not in (tmp_path / "export/manifest.json").read_text()


def test_losses_equal_upstream(shared):
    """Hinge and adaptive weight of taming-transformers, as Driving_Simulator uses them."""
    from safetensors.torch import load_file
    from torch.nn import functional as F

    folder = shared / "parity/vqgan_losses"
    io, weights = load_file(folder / "io.safetensors"), load_file(folder / "weights.safetensors")
    config = json.loads((folder / "config.json").read_text())
    real, fake = io["logits_real_train"], io["logits_fake_train"]
    close = {"rtol": 1e-4, "atol": 1e-6}
    loss = hinge_discriminator_loss(real, fake)
    torch.testing.assert_close(loss, io["hinge_after_disc_loss"].reshape(()), **close)
    last = io["last_layer_weight"].requires_grad_()
    recon = F.conv2d(io["hidden"], last, io["last_layer_bias"], padding=1)
    discriminator = parity_discriminator(weights)
    adversarial = generator_loss(discriminator(recon))
    torch.testing.assert_close(adversarial, io["hinge_after_gen_g_loss"].reshape(()), **close)
    nll = io["hinge_after_gen_nll_loss"]
    perceptual = ((io["inputs"] - recon) ** 2).mean((1, 2, 3), keepdim=True)
    settings = config["loss"]
    pixel = settings["pixelloss_weight"] * (io["inputs"] - recon).abs()
    mine = (pixel + settings["perceptual_weight"] * perceptual).mean()
    torch.testing.assert_close(mine, nll.reshape(()), **close)
    gradients = [
        torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (mine, adversarial)
    ]
    weight = settings["disc_weight"] * adaptive_weight(*gradients)
    torch.testing.assert_close(weight, io["hinge_after_gen_d_weight"].reshape(()), **close)


def test_cutting_the_graph_at_the_pixels_gives_the_same_gradients(composed):
    """One walk through the autoencoder, and the last layer's gradient without any."""
    from training.run import build_data, build_model

    cfg = composed("tokenizer_tiny", *SMALL)
    module = build_model(cfg, build_data(cfg))
    frames = torch.rand(2, 3, 64, 64) * 2 - 1
    fake, _ = module.autoencoder(frames)
    loss, _ = module.reconstruction_loss(frames, fake)
    loss.backward()
    whole = [p.grad.clone() for p in module.autoencoder.parameters()]
    module.autoencoder.zero_grad()
    fake, _ = module.autoencoder(frames)
    seen = fake.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(module.reconstruction_loss(frames, seen)[0], seen)
    last = module.autoencoder.decoder.last_layer_gradient(gradient)
    fake.backward(gradient)
    for a, b in zip(whole, [p.grad for p in module.autoencoder.parameters()], strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(last, module.autoencoder.last_layer.grad)


def parity_discriminator(weights):
    from tokenizer.networks.discriminator import PatchDiscriminator

    names = {k.removeprefix("discriminator."): v for k, v in weights.items()}
    channels = names["main.0.weight"].shape[0]
    layers = sum(1 for k in names if k.endswith("running_mean"))
    discriminator = PatchDiscriminator(channels, layers)
    discriminator.load_state_dict(names)
    return discriminator.train()


def test_a_discriminator_that_is_sure_and_right_costs_nothing():
    logits = torch.full((1, 1, 2, 2), 3.0)
    assert hinge_discriminator_loss(logits, -logits) == 0
    assert hinge_discriminator_loss(-logits, logits) == 4
