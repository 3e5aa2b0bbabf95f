"""What holds for every quantizer: round trips, gradients, description, state."""

import json
from dataclasses import replace

import pytest
import torch

from tokenizer.quantizers.config import (
    FSQConfig,
    LFQConfig,
    ProductConfig,
    ResidualConfig,
    VQConfig,
)
from tokenizer.quantizers.kinds import KINDS, build_quantizer, describe, from_description
from training.errors import BadInput

STILL = {"kmeans_batches": 0, "dead_below": 0.0}
PLAIN = VQConfig(8, 4, 4, normalize=False, decay=0.5, **STILL)
STAGE = replace(PLAIN, commitment_weight=0.0)
EVERY = {
    "fsq": FSQConfig([4, 3, 2]),
    "vq": VQConfig(16, 6, 3, **STILL),
    "vq-plain": PLAIN,
    "vq-gradient": VQConfig(16, 6, 3, learn="gradient", **STILL),
    "vq-revived": VQConfig(16, 6, 6, learn="gradient", dead_below=0.2),
    "lfq": LFQConfig(5),
    "lfq-big": LFQConfig(6, factor_bits=(2, 4), bit_order="big"),
    "residual-vq": ResidualConfig(STAGE, num_stages=3),
    "residual-fsq": ResidualConfig(FSQConfig([5, 5]), scale=0.2),
    "residual-lfq": ResidualConfig(LFQConfig(3, entropy_weight=0, commitment_weight=0), scale=0.5),
    "product-vq": ProductConfig(PLAIN, num_groups=2),
    "product-residual": ProductConfig(ResidualConfig(STAGE), num_groups=2),
}
ALL = pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)


def built(config):
    torch.manual_seed(0)
    return build_quantizer(config)


def latents(quantizer, *shape):
    return torch.randn(*shape, quantizer.dim, generator=torch.Generator().manual_seed(1))


@ALL
def test_every_index_survives_the_round_trip(config):
    quantizer = built(config)
    everything = torch.arange(quantizer.vocab_size)
    codes = quantizer.decode(everything)
    assert codes.shape == (quantizer.vocab_size, quantizer.dim)
    assert len(codes.unique(dim=0)) == quantizer.vocab_size
    if quantizer.factors:
        assert torch.tensor(quantizer.factors).prod() == quantizer.vocab_size
    if config in (PLAIN, EVERY["vq-revived"], EVERY["product-vq"]) or isinstance(config, LFQConfig):
        # Elsewhere a code is no latent: FSQ squashes, projections and sums lead elsewhere.
        assert torch.equal(quantizer.encode(codes), everything)


@ALL
def test_training_and_using_agree(config):
    quantizer = built(config).eval()
    z = latents(quantizer, 2, 3, 3)
    codes, indices, _ = quantizer(z)
    assert indices.shape == (2, 3, 3)
    assert indices.dtype == torch.int64
    assert torch.equal(quantizer.encode(z), indices)
    assert indices.max() < quantizer.vocab_size
    torch.testing.assert_close(quantizer.decode(indices), codes)


def slope(function, at):
    """Derivative along a random direction, by finite differences; and that direction."""
    direction = torch.randn_like(at)
    with torch.no_grad():
        ahead, behind = (function(at + sign * 1e-6 * direction) for sign in (1, -1))
    return (ahead - behind) / 2e-6, direction


@ALL
def test_gradients_of_the_losses_are_those_of_finite_differences(config):
    """Where nothing but the codes is held still, as a nearest code is between two borders."""
    quantizer = built(config).double().eval()
    z = latents(quantizer, 6).double().requires_grad_()

    def encoder_terms(z):
        return sum(v for name, v in quantizer(z).losses.items() if name != "codebook")

    if quantizer(z).losses:
        (gradient,) = torch.autograd.grad(encoder_terms(z), z)
        expected, direction = slope(encoder_terms, z)
        torch.testing.assert_close((gradient * direction).sum(), expected, atol=1e-5, rtol=1e-4)
    if "codebook" in quantizer(z).losses:
        (gradient,) = torch.autograd.grad(quantizer(z).losses["codebook"], quantizer.codebook)

        def codebook_term(codebook):
            quantizer.codebook.data.copy_(codebook)
            return quantizer(z).losses["codebook"]

        expected, direction = slope(codebook_term, quantizer.codebook.detach().clone())
        torch.testing.assert_close((gradient * direction).sum(), expected, atol=1e-5, rtol=1e-4)


@ALL
def test_the_gradient_of_the_codes_reaches_the_latents_once(config):
    quantizer = built(config).double().eval()
    z = latents(quantizer, 6).double().requires_grad_()
    cotangent = torch.randn_like(z)
    (passed,) = torch.autograd.grad((quantizer(z).codes * cotangent).sum(), z)
    assert passed.abs().sum() > 0
    if "fsq" not in str(config).lower() and "normalize=True" not in str(config):
        torch.testing.assert_close(passed, cotangent)


@ALL
def test_the_manifest_holds_what_builds_it_again(config):
    written = json.loads(json.dumps(describe(config)))
    again = from_description(written)
    assert describe(again) == describe(config)
    state = built(config).state_dict()
    build_quantizer(again).load_state_dict(state)


def test_every_kind_is_tried_here():
    assert {type(config) for config in EVERY.values()} == set(KINDS.values())


def test_descriptions_of_another_release_are_refused():
    with pytest.raises(BadInput, match="'sphere' is unknown"):
        from_description({"name": "sphere"})
    with pytest.raises(BadInput, match=r"quantizer: .* is unknown"):
        from_description({"name": "vq", "shape": 3})


def test_stages_leave_less_and_less():
    z = torch.randn(400, 4)
    left = []
    for stages in (1, 2, 3):
        torch.manual_seed(0)
        book = VQConfig(8, 4, 4, normalize=False, decay=0.5, kmeans_batches=5)
        quantizer = build_quantizer(ResidualConfig(book, num_stages=stages))
        for _ in range(5):
            quantizer(z.clone().requires_grad_())
        left.append((quantizer.eval()(z).codes - z).square().mean().item())
    assert left[0] > 1.5 * left[1] > 2.25 * left[2]


def test_stages_share_one_commitment():
    z = torch.randn(8, 4)
    quantizer = built(ResidualConfig(STAGE, commitment_weight=0.5)).eval()
    codes, _, losses = quantizer(z)
    torch.testing.assert_close(losses, {"commitment": 0.5 * (z - codes).square().mean()})
    assert built(ResidualConfig(STAGE, commitment_weight=0.0))(z).losses == {}


def test_the_scale_makes_later_stages_finer():
    z = torch.rand(400, 3) * 2 - 1
    left = {}
    for scale in (1.0, 0.5):
        quantizer = build_quantizer(ResidualConfig(LFQConfig(3), num_stages=3, scale=scale))
        left[scale] = (quantizer(z).codes - z).square().mean().item()
    assert left[0.5] < 0.2 * left[1.0]


def test_digits_of_the_index_are_the_factors():
    quantizer = built(ProductConfig(PLAIN, num_groups=2))
    z = latents(quantizer, 10)
    first, second = (p.encode(g) for p, g in zip(quantizer.parts, z.chunk(2, -1), strict=True))
    assert torch.equal(quantizer.encode(z), first + 8 * second)
    assert quantizer.factors == (8, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualConfig(PLAIN, num_stages=0), "num_stages=0"),
        (lambda: ResidualConfig(PLAIN, scale=2.0), "scale=2.0"),
        (lambda: ProductConfig(PLAIN, num_groups=0), "num_groups=0"),
        (
            lambda: build_quantizer(ProductConfig(LFQConfig(18), num_groups=2)),
            "a token store holds 2",
        ),
    ],
)
def test_composites_out_of_range_are_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()
