"""Lookup-free quantization against the published terms, and against its own definition."""

from pathlib import Path

import published_files
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from tokenizer.quantizers.config import LFQConfig
from tokenizer.quantizers.kinds import build_quantizer
from training.errors import BadInput


@pytest.fixture(scope="module")
def parity(shared: Path) -> dict[str, torch.Tensor]:
    return load_file(shared / "parity/magvit2_lfq/io.safetensors")


@pytest.fixture(scope="module")
def said(shared: Path) -> dict:
    """What the fixture's config.json says of the model."""
    return published_files.parity(shared, "magvit2_lfq")[1]["model"]


@pytest.mark.parametrize(("size", "atol"), [("s", 1e-4), ("m", 2e-5)])
def test_terms_indices_and_gradient_equal_upstream(parity, said, size, atol):
    def expected(name):
        return parity[f"lfq_{size}_{name}"]

    lfq = build_quantizer(LFQConfig(bits=said["z_channels"], bit_order="big"))
    z = expected("z").clone().requires_grad_()
    codes, indices, losses = lfq(z.movedim(1, -1))
    assert torch.equal(indices, expected("indices"))
    assert torch.equal(codes.movedim(-1, 1).sign(), expected("quant").sign())
    close = {"atol": 2e-4, "rtol": 0}
    sample, batch = lfq.entropies(z.movedim(1, -1))
    torch.testing.assert_close(sample, expected("per_sample_entropy"), **close)
    torch.testing.assert_close(batch, expected("codebook_entropy"), **close)
    torch.testing.assert_close(
        losses["entropy"], said["codebook_weight"] * expected("entropy_aux"), **close
    )
    torch.testing.assert_close(
        losses["commitment"], said["commit_weight"] * expected("commitment"), **close
    )
    total = sum(losses.values()) + (codes.movedim(-1, 1) * expected("cotangent")).sum()
    total.backward()
    torch.testing.assert_close(z.grad, expected("grad"), atol=atol, rtol=0)


def test_published_bits_indices_and_token_order(parity, said):
    bits = said["z_channels"]
    big, little = (
        build_quantizer(LFQConfig(bits=bits, bit_order=order)) for order in ("big", "little")
    )
    latent = parity["latent"].movedim(1, -1)
    assert torch.equal(big.encode(latent), parity["indices"])
    assert torch.equal(big.decode(parity["indices"]).movedim(-1, 1), parity["quant"])
    # Data sets of 1X hold tokens whose lowest bit is channel 0.
    assert torch.equal(little.decode(parity["tokens"]).movedim(-1, 1), parity["tokens_quant"])
    # Halves of the index, as a factorised model predicts them.
    half = bits // 2
    halves = build_quantizer(LFQConfig(bits=bits, factor_bits=(half, half), bit_order="big"))
    assert halves.factors == (2**half, 2**half)
    joint = halves.encode(parity["lfq_m_z"].movedim(1, -1))
    assert torch.equal(joint % 2**half, parity["lfq_m_indices_post"])
    assert torch.equal(joint // 2**half, parity["lfq_m_indices_pre"])


def by_definition(z, temperature):
    """Both entropies from the whole table of positions x codes."""
    bits = z.shape[-1]
    codes = 2.0 * (torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1) - 1
    p = (2 * z.flatten(0, -2) @ codes.T.to(z.dtype) / temperature).softmax(-1)
    mean = p.mean(0)
    return -torch.xlogy(p, p).sum(-1).mean(), -(mean * (mean + 1e-5).log()).sum()


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_entropies_are_exact(bits, temperature):
    lfq = build_quantizer(LFQConfig(bits=bits, temperature=temperature))
    z = 0.3 * torch.randn(3, 4, bits, dtype=torch.float64)
    for mine, expected in zip(lfq.entropies(z), by_definition(z, temperature), strict=True):
        torch.testing.assert_close(mine, expected)


def test_no_table_of_positions_and_codes_is_made():
    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, torch.Tensor):
                    Largest.size = max(Largest.size, tensor.numel())
            return out

    z = torch.randn(64, 18, requires_grad=True)
    lfq = build_quantizer(LFQConfig(bits=18))
    with Largest():
        sum(lfq(z).losses.values()).backward()
    assert Largest.size == 2**18  # the mean over positions; with positions it would be 2^24


def test_annealing_ends_at_the_weight():
    z = 0.1 * torch.randn(64, 6)
    values = {}
    for ratio in (0.0, 3.0):
        lfq = build_quantizer(LFQConfig(bits=6, anneal_ratio=ratio, anneal_steps=4))
        values[ratio] = torch.stack([lfq(z).losses["entropy"] for _ in range(6)])
    expected = torch.tensor([4.0, 3.25, 2.5, 1.75, 1.0, 1.0])
    torch.testing.assert_close(values[3.0] / values[0.0], expected)
    again = build_quantizer(LFQConfig(bits=6, anneal_ratio=3.0, anneal_steps=4))
    again.load_state_dict(lfq.state_dict())  # six batches later
    assert again(z).losses["entropy"] == values[0.0][0]
    with torch.no_grad():
        before = again.num_batches.clone()
        again(z)
        assert again.num_batches == before


@pytest.mark.parametrize("name", ["entropy", "commitment"])
def test_a_weight_of_zero_leaves_the_term_out(name):
    lfq = build_quantizer(LFQConfig(bits=4, **{f"{name}_weight": 0.0}))
    assert lfq(torch.randn(8, 4)).losses.keys() == {"entropy", "commitment"} - {name}


def test_the_two_sides_of_the_penalty_have_their_weights():
    z = 0.1 * torch.randn(64, 4)
    sample, batch = build_quantizer(LFQConfig(bits=4)).entropies(z)
    lfq = build_quantizer(
        LFQConfig(bits=4, entropy_weight=2.0, sample_weight=3.0, batch_weight=0.5)
    )
    torch.testing.assert_close(lfq(z).losses["entropy"], 2 * (3 * sample - 0.5 * batch))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"bits": 40}, "bits=40"),
        ({"factor_bits": (9, 8)}, r"factor_bits=\[9, 8\].*add up to bits=10"),
        ({"bit_order": "middle"}, "bit_order='middle'"),
        ({"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_settings_out_of_range_are_refused(bad, message):
    with pytest.raises(BadInput, match=message):
        LFQConfig(**bad)
