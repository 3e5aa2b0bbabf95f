"""The VQGAN blocks train, and compute the same in every way of computing faster."""

import os
import shutil

import pytest
import torch

from tokenizer.inference import native
from tokenizer.inference.config import InferenceConfig
from tokenizer.inference.fast import folded, for_inference, share_changed
from tokenizer.inference.winograd import WinogradConv2d
from tokenizer.load import Tokenizer, manifest_of
from tokenizer.losses.config import LossConfig
from tokenizer.module import TokenizerModule
from tokenizer.networks.config import VQGANConfig
from tokenizer.networks.kinds import build_network
from tokenizer.networks.vqgan_blocks import NearestUpsample
from tokenizer.quantizers.config import FSQConfig, LFQConfig, VQConfig
from training.config import AdamWConfig
from training.errors import BadInput

TINY = {"image_size": (16, 32), "width": 32, "multipliers": (1, 2), "num_res_blocks": 1}


def config(style: str = "taming", **changes) -> VQGANConfig:
    given = {"z_channels": 8, "attention_levels": (1,), "style": style, **TINY, **changes}
    return VQGANConfig(**given)


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    network = build_network(config())
    return Tokenizer(network, "test", manifest_of(network.config))


@pytest.mark.parametrize("style", ["taming", "magvit2", "open_magvit2"])
@pytest.mark.parametrize("quantizer", [FSQConfig(), VQConfig(64, 5, 5), LFQConfig(7)])
def test_shapes_and_gradients(style, quantizer):
    network = build_network(config(style, quantizer=quantizer)).eval()  # codes stay where they are
    frames = torch.rand(2, 3, 16, 32) * 2 - 1
    fake, quantized = network(frames)
    fake.square().mean().backward()
    assert fake.shape == frames.shape
    assert quantized.indices.shape == (2, 8, 16)
    assert torch.equal(quantized.indices, network.encode(frames))
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert network.flops_per_frame > 0


def test_the_module_trains_it_as_any_autoencoder():
    loss = LossConfig(perceptual_net="", gan_start=0, discriminator_channels=8)
    module = TokenizerModule(config(), loss, AdamWConfig())
    module.speed_up(compile=False, recompute=True)
    assert module.manifest["network"]["name"] == "vqgan"
    fake, _ = module.autoencoder(torch.rand(1, 3, 16, 32))
    weight = module.autoencoder.decoder.conv_out.weight
    pixels = torch.randn_like(fake)
    (expected,) = torch.autograd.grad((fake * pixels).sum(), weight)
    ours = module.autoencoder.decoder.last_layer_gradient(pixels)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"style": "stable"}, "taming, magvit2"),
        ({"width": 48}, "multiple of 32"),
        ({"image_size": (15, 32)}, "multiples of 2"),
        ({"style": "open_magvit2", "image_size": (2, 2)}, "is one token"),
    ],
)
def test_impossible_shapes_are_refused(changes, words):
    with pytest.raises(BadInput, match=words):
        config(**changes)


def test_attention_stands_where_it_is_asked_for():
    names = [n for n, _ in build_network(config(attention_levels=(0,))).named_modules()]
    assert any("down_0_attention_0" in n for n in names)
    assert not any("down_1_attention" in n for n in names)


def test_folded_upsampling_is_the_same_function():
    torch.manual_seed(0)
    layer, x = NearestUpsample(6), torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(folded(layer)(x), layer(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(16, 32), (5, 3), (1, 70)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [128, 3])  # 3: blocks of rows, and of frames
@pytest.mark.parametrize("channels", [(6, 9), (24, 32)])  # in torch; in C, where it compiles
def test_winograd_is_the_same_convolution(height, width, bias, block, channels, monkeypatch):
    monkeypatch.setattr("tokenizer.inference.winograd.BLOCK", block)
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(*channels, 3, padding=1, bias=bias)
    x = torch.randn(3, channels[0], height, width)
    torch.testing.assert_close(WinogradConv2d(conv)(x), conv(x), atol=2e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 16), (5, 3), (1, 7)])
@pytest.mark.parametrize("channels", [6, 32])  # in torch; in C, where it compiles
def test_winograd_reads_a_pixel_four_times_where_pixels_double(height, width, channels):
    torch.manual_seed(0)
    layer, x = NearestUpsample(channels), torch.randn(3, channels, height, width)
    torch.testing.assert_close(WinogradConv2d(layer)(x), layer(x), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_winograd_runs_in_c_and_without_a_compiler_in_torch(monkeypatch, tmp_path, capsys):
    torch.manual_seed(0)
    layer, x = WinogradConv2d(torch.nn.Conv2d(16, 16, 3, padding=1)), torch.randn(1, 16, 9, 9)
    in_torch = layer._in_torch(x)
    if shutil.which(os.environ.get("CC", "cc")):
        assert not torch.equal(layer(x), in_torch)  # another order of sums
    assert "note" not in capsys.readouterr().out
    monkeypatch.setattr(native, "_functions", native._functions.__wrapped__)
    monkeypatch.setenv("CC", "missing")
    assert torch.equal(layer(x), in_torch)
    said = "note: winograd=true: there is no C compiler 'missing'; install one, or name it in CC; "
    assert capsys.readouterr().out == said + "torch computes instead, slower\n"


@torch.no_grad()
def test_winograd_is_used_where_it_pays_and_the_tokens_stay():
    torch.manual_seed(0)
    network = build_network(config(width=64, multipliers=(1, 8)))
    tokenizer = Tokenizer(network, "test", manifest_of(network.config))
    fast = for_inference(tokenizer, InferenceConfig(winograd=True))
    used = [n for n, m in fast.network.named_modules() if isinstance(m, WinogradConv2d)]
    assert "encoder.layers.down_0_block_0.conv1" in used
    assert not [n for n in used if "conv_in" in n or "down_1" in n or "shortcut" in n]
    assert "decoder.layers.up_1_resample" not in used, "512 channels are folded"
    frames = torch.rand(2, 3, 16, 32) * 2 - 1
    tokens = tokenizer.encode(frames)
    assert torch.equal(fast.encode(frames), tokens)
    torch.testing.assert_close(fast.decode(tokens), tokenizer.decode(tokens), atol=1e-4, rtol=0)
    with pytest.raises(BadInput, match="float32"):
        InferenceConfig("bfloat16", winograd=True)


@torch.no_grad()
def test_frames_at_once_bounds_what_is_computed_together():
    torch.manual_seed(0)
    network = build_network(config())
    tokenizer = Tokenizer(network, "test", manifest_of(network.config))
    parts = for_inference(tokenizer, InferenceConfig(frames_at_once=2, fold=False))
    sizes = []
    for part in (parts.network.encoder.conv_out, parts.network.decoder.conv_out):
        part.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    frames = torch.rand(5, 3, 16, 32) * 2 - 1
    tokens = tokenizer.encode(frames)
    assert torch.equal(parts.encode(frames), tokens)
    torch.testing.assert_close(parts.decode(tokens), tokenizer.decode(tokens))
    assert sizes == [2, 2, 1] * 2
    with pytest.raises(BadInput, match="frames_at_once=-1"):
        InferenceConfig(frames_at_once=-1)


@torch.no_grad()
@pytest.mark.parametrize("change", ["fold", "channels_last"])
def test_float32_stays_what_it_is_to_rounding(tokenizer, change):
    frames = torch.rand(2, 3, 16, 32) * 2 - 1
    off = {"fold": False, "channels_last": False}
    fast = for_inference(tokenizer, InferenceConfig(**{**off, change: True}))
    assert share_changed(tokenizer, fast, frames) == 0
    tokens = tokenizer.encode(frames)
    torch.testing.assert_close(fast.decode(tokens), tokenizer.decode(tokens), atol=1e-5, rtol=0)
    parts = list(fast.network.modules())
    if change == "fold":
        assert not any(isinstance(m, NearestUpsample) for m in parts)
        assert any(isinstance(m, NearestUpsample) for m in tokenizer.network.modules())
    else:
        assert fast.network.decoder.conv_out.weight.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_bfloat16_changes_some_tokens_and_says_how_many(tokenizer):
    frames = torch.rand(8, 3, 16, 32) * 2 - 1
    fast = for_inference(tokenizer, InferenceConfig("bfloat16"))
    assert fast.network.encoder.conv_out.weight.dtype == torch.bfloat16
    assert 0 < share_changed(tokenizer, fast, frames) < 0.2
    tokens = tokenizer.encode(frames)
    assert fast.decode(tokens).dtype == torch.float32
    torch.testing.assert_close(fast.decode(tokens), tokenizer.decode(tokens), atol=0.05, rtol=0)
    with pytest.raises(BadInput, match="float32, bfloat16"):
        InferenceConfig("float16")


def test_compile_compiles_both_halves(tokenizer):
    fast = for_inference(tokenizer, InferenceConfig(compile=True))
    compiled = [n for n, m in fast.network.named_children() if m._compiled_call_impl]
    assert {"encoder", "decoder"} <= set(compiled)
