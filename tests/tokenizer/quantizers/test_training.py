"""A tokenizer trains with every quantizer; what is saved and exported gives the same tokens."""

import pytest
import torch

from tokenizer.load import export_tokenizer, load_tokenizer
from training.checkpoints.folder import newest_first, read_weights

SMALL = [
    "+debug=fast",
    "callbacks.media=null",
    "trainer.max_steps=5",
    "trainer.val_check_interval=5",
    "checkpoints.every_steps=5",
    "model.network.channels=[8,16]",
    "model.loss.perceptual_net=''",
    "model.loss.gan_start=3",
    "model.loss.discriminator_channels=8",
    "model.ema_decay=0.5",
    "data.num_workers=0",
]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("vq_gradient", "product")]


@pytest.mark.parametrize("quantizer", ["vq", "lfq", "residual", *SLOW])
def test_a_trained_tokenizer_opens_with_the_tokens_it_had(quantizer, composed, fit, tmp_path):
    module, run, trainer = fit(composed("tokenizer_tiny", *SMALL, f"quantizer={quantizer}"))
    assert trainer.global_step == 5
    learned = [v for k, v in module.state_dict().items() if k.endswith("num_batches")]
    assert {int(value) for value in learned} == {5}  # also in the average, which copies counts
    frames = torch.rand(2, 3, 64, 64) * 2 - 1
    expected = module.ema.module.eval().encode(frames)
    opened = load_tokenizer(run.folder)
    assert torch.equal(opened.encode(frames), expected)
    assert opened.spec(10.0).vocab_size == module.autoencoder.quantizer.vocab_size >= 1024
    export_tokenizer(newest_first(run.folder)[0], tmp_path / "export")
    exported = load_tokenizer(tmp_path / "export").network.quantizer
    z = torch.randn(50, exported.dim)
    assert torch.equal(exported.encode(z), opened.network.quantizer.encode(z))
    weights = read_weights(tmp_path / "export")
    assert weights["ema.module.encoder.conv_out.weight"].dtype == torch.float16


@pytest.mark.slow
def test_pictures_and_counted_flops_teach_the_codebook_nothing(composed, fit):
    """Both run the network in training mode, on frames that are no part of the batch."""
    settings = ["quantizer=vq", "model.network.quantizer.kmeans_batches=0"]
    seen = {}
    for media in ("none", "reconstructions"):
        every = ["callbacks.media.every_steps=2"] if media != "none" else ["callbacks.media=null"]
        cut = [o for o in SMALL if not o.startswith("callbacks.media")]
        cfg = composed("tokenizer_tiny", *cut, *every, *settings, f"run={media}")
        cfg.run = f"{cfg.paths.runs}/{media}"
        module, _, _ = fit(cfg)
        module.autoencoder.train()
        before = module.autoencoder.quantizer.codebook.clone()
        assert module.autoencoder.flops_per_frame > 0
        assert torch.equal(before, module.autoencoder.quantizer.codebook)
        seen[media] = module.state_dict()
    for name, value in seen["none"].items():
        assert torch.equal(value, seen["reconstructions"][name]), name


def test_the_plan_of_a_run_needs_no_values(composed):
    """Under fake tensors nothing may ask how many batches a codebook has seen."""
    from training.planner.plan import plan
    from training.planner.report import report

    cfg = composed("tokenizer_tiny", *SMALL, "quantizer=vq", "plan_device=cpu")
    assert "tokenizer_tiny" in report(plan(cfg))
