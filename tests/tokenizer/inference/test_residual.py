"""Residual blocks in fewer passes: the same function as the blocks that were trained."""

import pytest
import torch
from torch.nn import functional as F

from tokenizer.inference.fast import replace_layers
from tokenizer.inference.residual import FastNormSilu, FastResBlock
from tokenizer.inference.winograd import WinogradConv2d
from tokenizer.networks.autoencoder import ResBlock
from tokenizer.networks.norms import NormSilu
from tokenizer.networks.vqgan_blocks import VqganResBlock


def norm_of(groups, channels, eps=1e-6):
    norm = NormSilu(groups, channels, eps)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


@torch.no_grad()
@pytest.mark.parametrize(
    ("groups", "channels", "height", "width"),
    [(32, 128, 9, 70), (1, 8, 1, 1), (4, 40, 16, 16), (8, 64, 3, 171), (2, 12, 5, 5)],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_norm_and_silu_in_one_pass(groups, channels, height, width, threads):
    """Also at a mean that is far from zero beside the deviation, and at large numbers."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    norm = norm_of(groups, channels, eps=1e-3)
    for scale, mean in ((1, 0), (1, 300), (1e-4, 0), (1e4, -1e4)):
        x = torch.randn(3, channels, height, width) * scale + mean
        wide = torch.nn.GroupNorm(groups, channels, 1e-3).double()
        wide.load_state_dict(norm.state_dict())
        exact = F.silu(wide(x.double()))
        error = (FastNormSilu(norm)(x).double() - exact).abs().max()
        of_torch = (norm(x).double() - exact).abs().max()
        assert error <= max(3 * of_torch, 5e-7 * exact.abs().max())


@torch.no_grad()
def test_norm_and_silu_have_one_order_of_sums():
    torch.manual_seed(0)
    layer, x = FastNormSilu(norm_of(4, 16)), torch.randn(2, 16, 33, 40)
    ends = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        ends.append(layer(x))
    assert torch.equal(*ends)


@torch.no_grad()
def test_silu_at_its_ends():
    """A norm of size 0 gives its bias alone."""
    norm = NormSilu(1, 8)
    x = torch.randn(1, 8, 4, 4)
    norm.weight.zero_()
    norm.bias.copy_(torch.tensor([-1e5, -200, -87.5, -20, 0, 20, 87.5, 1e5]))
    torch.testing.assert_close(FastNormSilu(norm)(x), norm(x), rtol=1e-6, atol=1e-30)
    norm.bias.fill_(float("nan"))
    assert FastNormSilu(norm)(x).isnan().all()


@torch.no_grad()
@pytest.mark.parametrize("kind", [ResBlock, lambda *sizes: VqganResBlock(*sizes, bias=True)])
@pytest.mark.parametrize("channels", [(64, 64), (64, 96)])
@pytest.mark.parametrize("winograd", [True, False])
@pytest.mark.parametrize("compiler", [True, False])
def test_a_block_in_fewer_passes_is_the_same(kind, channels, winograd, compiler, monkeypatch):
    if not compiler:
        for module in ("residual", "winograd"):
            monkeypatch.setattr(f"tokenizer.inference.{module}.functions_for", lambda x: None)
    torch.manual_seed(0)
    block = kind(*channels)
    x = torch.randn(2, channels[0], 13, 21)
    expected = block(x)
    replace_layers(block, NormSilu, FastNormSilu)
    fast = FastResBlock(block)
    if winograd:
        fast.conv1, fast.conv2 = WinogradConv2d(block.conv1), WinogradConv2d(block.conv2)
    torch.testing.assert_close(fast(x), expected, atol=2e-5, rtol=1e-5)
