"""Semantic tokenizers: a transformer as torchvision's, weights by name, features that survive."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file

from tokenizer.callbacks import CodeMedia
from tokenizer.load import load_tokenizer, manifest_of
from tokenizer.networks.config import SemanticConfig
from tokenizer.networks.kinds import build_network
from tokenizer.networks.semantic import SemanticTokenizer
from tokenizer.networks.vision_transformer import VisionTransformer, fit_positions, load_vit
from tokenizer.quantizers.config import FSQConfig
from training.checkpoints.folder import write_checkpoint
from training.errors import BadInput

CONFIG = SemanticConfig(
    image_size=(16, 24),
    quantizer=FSQConfig((5, 5, 5, 5)),
    patch=8,
    dim=32,
    depth=2,
    heads=2,
)
TORCHVISION = {
    "class_token": "cls_token",
    "encoder.pos_embedding": "pos_embed",
    "conv_proj": "patch_embed.proj",
    "encoder.ln": "norm",
    "encoder.layers.encoder_layer_": "blocks.",
    ".ln_1": ".norm1",
    ".ln_2": ".norm2",
    ".self_attention.in_proj_": ".attn.qkv.",
    ".self_attention.out_proj": ".attn.proj",
    ".mlp.0": ".mlp.fc1",
    ".mlp.3": ".mlp.fc2",
}


def renamed(key: str) -> str:
    for theirs, ours in TORCHVISION.items():
        key = key.replace(theirs, ours)
    return key


def test_the_transformer_is_torchvisions(tmp_path):
    from torchvision.models import VisionTransformer as Reference

    torch.manual_seed(0)
    reference = Reference(16, 4, 2, 2, 32, 128).eval()
    for parameter in reference.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # zeros would hide a wrong name
    weights = {renamed(k): v for k, v in reference.state_dict().items() if "heads" not in k}
    save_file(weights, tmp_path / "vit.safetensors")
    network = VisionTransformer((4, 4), 4, 32, 2, 2)
    load_vit(network, str(tmp_path / "vit.safetensors"))
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        tokens = reference._process_input(images)
        tokens = torch.cat([reference.class_token.expand(3, -1, -1), tokens], 1)
        expected = reference.encoder(tokens)[:, 1:]
        features = rearrange(network(images), "n h w d -> n (h w) d")
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)


def test_registers_and_layer_scale_change_the_features():
    images = torch.randn(1, 3, 16, 16)
    features = []
    for options in ({}, {"registers": 2}, {"layer_scale": True}):
        torch.manual_seed(0)
        network = VisionTransformer((4, 4), 4, 32, 1, 2, **options)
        for parameter in network.parameters():
            parameter.data += 0.1
        features.append(network(images))
    assert not torch.allclose(features[0], features[1])
    assert not torch.allclose(features[0], features[2])


def test_positions_are_interpolated_for_another_grid():
    table = torch.randn(1, 17, 8)
    assert fit_positions(table, (4, 4)) is table
    without_class = fit_positions(table[:, 1:], (4, 4))
    assert torch.equal(without_class[:, 1:], table[:, 1:])
    assert not without_class[:, 0].any()
    with pytest.raises(BadInput, match="15 positions are no square"):
        fit_positions(table[:, 2:], (4, 4))
    wide = fit_positions(table, (4, 8))
    assert wide.shape == (1, 33, 8)
    assert torch.equal(wide[:, :1], table[:, :1])
    flat = torch.ones(1, 17, 8)
    torch.testing.assert_close(fit_positions(flat, (2, 3)), torch.ones(1, 7, 8))


def test_weights_of_another_transformer_are_refused_by_name(tmp_path):
    network = VisionTransformer((2, 3), 8, 32, 2, 2)
    weights = VisionTransformer((2, 2), 8, 32, 2, 2).state_dict()
    file = tmp_path / "vit.pth"
    torch.save({**weights, "head.weight": torch.zeros(2, 32)}, file)
    load_vit(network, str(file))
    assert torch.equal(network.state_dict()["norm.weight"], weights["norm.weight"])
    torch.save({**weights, "extra": torch.zeros(1)}, file)
    with pytest.raises(BadInput, match="no place for: extra"):
        load_vit(network, str(file))
    torch.save({k: v for k, v in weights.items() if k != "norm.bias"}, file)
    with pytest.raises(BadInput, match=r"lacks norm\.bias"):
        load_vit(network, str(file))
    torch.save(VisionTransformer((2, 2), 8, 16, 2, 2).state_dict(), file)
    with pytest.raises(BadInput, match=r"is \(.*16.*\), \(.*32.*\) is needed"):
        load_vit(network, str(file))
    file.write_bytes(b"nothing")
    with pytest.raises(BadInput, match="cannot be read"):
        load_vit(network, str(file))
    with pytest.raises(BadInput, match="no such file"):
        load_vit(network, "absent.pth")
    with pytest.raises(BadInput, match="needs weights"):
        build_network(CONFIG).load_weights(None)


def test_registers_have_two_names(tmp_path):
    network = VisionTransformer((2, 2), 8, 32, 1, 2, registers=3)
    weights = {k: torch.randn_like(v) for k, v in network.state_dict().items()}
    theirs = {k.replace("reg_token", "register_tokens"): v for k, v in weights.items()}
    save_file(theirs, tmp_path / "vit.safetensors")
    load_vit(network, str(tmp_path / "vit.safetensors"))
    assert all(torch.equal(v, weights[k]) for k, v in network.state_dict().items())


def test_names_that_timm_does_not_have_are_refused():
    pytest.importorskip("timm")
    with pytest.raises(BadInput, match="timm:no_such_network: timm cannot make it"):
        load_vit(VisionTransformer((2, 2), 8, 32, 1, 2), "timm:no_such_network")


def pictures(count: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 2, 3) * 2 - 1
    return coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)


@pytest.mark.parametrize("encoder_depth", [0, 1])
def test_codes_learn_to_keep_the_features_and_the_transformer_stays(encoder_depth):
    torch.manual_seed(0)
    network = build_network(replace(CONFIG, encoder_depth=encoder_depth))
    before = {k: v.clone() for k, v in network.teacher.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 3e-3)
    cosines = []
    for _ in range(80):
        loss, logs, _ = network.loss(pictures(32)[None], torch.zeros(1, 32, 1))
        cosines.append(logs["cosine"].item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # What a code says must beat the mean feature of its place, which needs no code.
    frames = pictures(256)
    with torch.no_grad():
        features = network.features(frames)
        kept = network(frames)[0].mean()
        mean = features.mean(0, keepdim=True).expand_as(features)
        floor = torch.nn.functional.cosine_similarity(mean, features, dim=-1).mean()
    assert cosines[0] < floor < kept
    assert 1 - kept < 0.7 * (1 - floor)
    assert all(torch.equal(v, before[k]) for k, v in network.teacher.state_dict().items())
    tokens = network.encode(frames)
    assert tokens.unique().numel() > 10
    assert len(network.trained_layers) == 1 + encoder_depth
    # Only without an encoder of its own do tokens depend on the frozen features.
    for parameter in network.teacher.parameters():
        parameter.data += torch.randn_like(parameter)
    assert torch.equal(tokens, network.encode(frames)) == bool(encoder_depth)


def test_pixels_are_normalised_as_the_weights_want_them():
    frames = torch.rand(1, 3, 16, 24) * 2 - 1
    features = []
    for std in (0.2, 0.5):
        torch.manual_seed(0)
        config = SemanticConfig((16, 24), patch=8, dim=32, depth=1, heads=2, std=(std,) * 3)
        features.append(build_network(config).features(frames))
    assert not torch.allclose(*features)


def test_it_is_opened_as_a_tokenizer_that_has_no_pixels(tmp_path):
    network = build_network(CONFIG).eval()
    weights = {f"ema.module.{k}": v for k, v in network.state_dict().items()}
    write_checkpoint(tmp_path / "semantic", weights, manifest_of(CONFIG))
    opened = load_tokenizer(tmp_path / "semantic")
    assert isinstance(opened.network, SemanticTokenizer)
    frames = pictures(2)
    tokens = opened.encode(frames)
    assert torch.equal(tokens, network.encode(frames))
    assert opened.spec(10.0).grid == (1, 2, 3)
    with pytest.raises(BadInput, match="no pixels"):
        opened.decode(tokens)
    with pytest.raises(BadInput, match=r"\(16, 24\)"):
        opened.encode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(BadInput, match=r"image_size=\[16, 20\]"):
        SemanticConfig((16, 20), patch=8)
    shown = CodeMedia().shown(opened.network, frames)
    assert shown.shape == frames.shape
    assert len(shown[0].flatten(1).unique(dim=1)[0]) == len(tokens[0].unique())
