"""FSQ against the published implementation's numbers, and against its own definition."""

from pathlib import Path

import published_files
import pytest
import torch
from safetensors.torch import load_file

from tokenizer.quantizers.config import FSQConfig
from tokenizer.quantizers.fsq import FSQ


@pytest.fixture(scope="module")
def parity(shared: Path) -> dict[str, torch.Tensor]:
    return load_file(shared / "parity/fsq_driving/io.safetensors")


@pytest.fixture(scope="module")
def said(shared: Path) -> dict:
    """What the fixture's config.json says."""
    return published_files.parity(shared, "fsq_driving")[1]


@pytest.mark.parametrize("name", ["A", "B"])
def test_codes_indices_and_gradient_equal_upstream(parity, said, name):
    fsq = FSQ(said[name]["levels"])
    z = parity[f"{name}_z"].movedim(1, -1).requires_grad_()
    codes, indices, _ = fsq(z)
    assert torch.equal(indices, parity[f"{name}_indices"])
    torch.testing.assert_close(codes.movedim(-1, 1), parity[f"{name}_quant"], atol=1e-6, rtol=0)
    bounded = fsq.bound(z).movedim(-1, 1)
    torch.testing.assert_close(bounded, parity[f"{name}_bounded"], atol=1e-5, rtol=0)
    (codes.movedim(-1, 1) * parity[f"{name}_cotangent"]).sum().backward()
    torch.testing.assert_close(z.grad.movedim(-1, 1), parity[f"{name}_grad"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["A", "B"])
def test_table_sequence_and_edges_equal_upstream(parity, said, name):
    fsq = FSQ(said[name]["levels"])
    codes = fsq.indices_to_codes(parity[f"{name}_table_indices"])
    torch.testing.assert_close(codes, parity[f"{name}_table_codes"], atol=1e-6, rtol=0)
    quant, indices, _ = fsq(parity[f"{name}_seq_z"])
    assert torch.equal(indices, parity[f"{name}_seq_indices"])
    torch.testing.assert_close(quant, parity[f"{name}_seq_quant"], atol=1e-6, rtol=0)
    quant, indices, _ = fsq(parity[f"{name}_edge_z"])
    assert torch.equal(indices, parity[f"{name}_edge_indices"])
    torch.testing.assert_close(quant, parity[f"{name}_edge_quant"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("levels", [[2, 3], [4, 5, 6], [8, 5, 5, 5]])
def test_every_code_is_reachable_and_indices_invert(levels):
    fsq = FSQ(levels)
    everything = torch.arange(fsq.vocab_size)
    codes = fsq.indices_to_codes(everything)
    assert codes.abs().max() <= 1
    assert torch.equal(fsq.codes_to_indices(codes), everything)
    z = torch.cartesian_prod(*(torch.linspace(-4, 4, 101) for _ in levels[:2]))
    z = torch.cat([z, torch.zeros(len(z), len(levels) - 2)], dim=1)
    seen = {tuple(c) for c in fsq.quantize(z)[:, :2].tolist()}
    assert len(seen) == levels[0] * levels[1]


def test_a_channel_with_one_level_is_refused():
    with pytest.raises(ValueError, match=r"levels=.*from 2 on, each"):
        FSQConfig([8, 1])
