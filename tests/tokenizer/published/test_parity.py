"""Published checkpoints give upstream's numbers: indices exactly, the rest as INDEX.md says."""

import math

import pytest
import torch
from published_files import parity
from safetensors.torch import load_file, save_file
from torch import Tensor

from drives.clips.preprocessing import to_uint8
from tokenizer.published import open_published


def close(ours: Tensor, theirs: Tensor, atol: float) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def in_range(image: Tensor) -> Tensor:
    """0..255 in the [-1, 1] that every tokenizer of ours takes."""
    return image / 127.5 - 1


def size(io: dict[str, Tensor]) -> list[int]:
    return list(io["image"].shape[-2:])


def raw_decode(tokenizer, tokens: Tensor) -> Tensor:
    """Frames of tokens before they are clamped."""
    return tokenizer.network.reconstruct(tokenizer.network.quantizer.decode(tokens))


def raw_latents(tokenizer, frames: Tensor) -> Tensor:
    return tokenizer.network.latents(tokenizer.preprocessing.to_network(frames))


@torch.no_grad()
def test_commavq(shared):
    folder, said = parity(shared, "commavq_vqvae")
    io = load_file(folder / "io.safetensors")
    files = [folder / said["checkpoint"][half] for half in ("encoder", "decoder")]
    tokenizer = open_published("commavq", files, image_size=size(io))
    assert tokenizer.spec(20).vocab_size == said["model"]["vocab_size"]
    frames = in_range(io["image"])
    close(raw_latents(tokenizer, frames).flatten(1, 2), io["latent"], 1e-3)
    tokens = tokenizer.encode(frames)
    assert torch.equal(tokens.flatten(1), io["indices"])
    close((raw_decode(tokenizer, tokens) + 1) / 2 * 255, io["reconstruction"], 2e-2)
    grid = io["decode_indices"].reshape(-1, *said["grid"])
    close((raw_decode(tokenizer, grid) + 1) / 2 * 255, io["decoded"], 2e-2)
    close((tokenizer.decode(grid) + 1) / 2 * 255, io["decoded"].clamp(0, 255), 2e-2)
    assert torch.equal(
        open_published("commavq", files[::-1], image_size=size(io)).decode(grid),
        tokenizer.decode(grid),
    )


@torch.no_grad()
def test_magvit2_and_the_two_bit_orders(shared):
    folder, said = parity(shared, "magvit2_lfq")
    io, file = load_file(folder / "io.safetensors"), folder / "weights.safetensors"
    model = open_published("magvit2", [file], image_size=size(io))
    close(raw_latents(model, io["image"]).permute(0, 3, 1, 2), io["latent"], 2e-4)
    tokens = model.encode(io["image"])
    assert torch.equal(tokens, io["indices"])
    assert torch.equal(model.network.quantizer.decode(tokens).permute(0, 3, 1, 2), io["quant"])
    close(raw_decode(model, tokens), io["reconstruction"], 2e-4)
    stored = open_published("magvit2", [file], image_size=size(io), bit_order="little")
    close(raw_decode(stored, io["tokens"]), io["tokens_decoded"], 2e-4)
    frames = to_uint8(stored.decode(io["tokens"]))
    close(frames.int(), io["tokens_decoded_uint8"].int(), 1)
    bits = int(tokens.flatten()[0])
    mirrored = int(f"{bits:0{said['model']['z_channels']}b}"[::-1], 2)
    assert int(stored.encode(io["image"]).flatten()[0]) == mirrored
    assert (model.spec(30).bit_order, stored.spec(30).bit_order) == ("big", "little")
    assert model.spec(30).vocab_size == said["model"]["codebook_size"]


@torch.no_grad()
@pytest.mark.parametrize("which", ["raw", "ema"])
def test_magvit2_raw_and_averaged_weights(shared, which):
    folder, _ = parity(shared, "magvit2_ckpt")
    io, file = load_file(folder / "io.safetensors"), folder / "weights.pt"
    model = open_published("magvit2", [file], image_size=size(io), weights=which)
    close(raw_latents(model, io["image"]).permute(0, 3, 1, 2), io[f"{which}_latent"], 2e-4)
    tokens = model.encode(io["image"])
    assert torch.equal(tokens, io[f"{which}_indices"])
    close(raw_decode(model, tokens), io[f"{which}_reconstruction"], 2e-4)
    if which == "raw":
        options = {"image_size": size(io), "bit_order": "little"}
        shown = open_published("magvit2", [file], **options)
        close(raw_decode(shown, io["tokens"]), io["tokens_displayed"], 2e-4)
    left_out = model.manifest["published"]["left_out"]
    assert any(key.startswith("loss.discriminator.") for key in left_out)
    assert ("raw encoder.conv_in.weight" in left_out) == (which == "ema")


@torch.no_grad()
def test_driving_simulator(shared):
    folder, said = parity(shared, "driving_tokenizer")
    io, file = load_file(folder / "io.safetensors"), folder / "weights.pt"
    tokenizer = open_published("driving_simulator", [file], image_size=size(io))
    close(raw_latents(tokenizer, io["image"]).permute(0, 3, 1, 2), io["latent"], 2e-4)
    tokens = tokenizer.encode(io["image"])
    assert torch.equal(tokens, io["indices"])
    codes = tokenizer.network.quantizer.decode(tokens)
    close(codes.permute(0, 3, 1, 2), io["codes"], 1e-6)
    close(raw_decode(tokenizer, tokens), io["reconstruction"], 2e-4)
    close(raw_decode(tokenizer, io["random_indices"]), io["decoded"], 2e-4)
    assert tokenizer.spec(10).vocab_size == math.prod(said["hparams"]["fsq_levels"])


@torch.no_grad()
def test_taming_is_commavq_in_another_wrapping(shared, tmp_path):
    """taming's names, its Lightning wrapping and its [-1, 1], on commaVQ's random weights."""
    folder = shared / "parity" / "commavq_vqvae"
    wrapped = taming_weights(folder)
    wrapped["loss.discriminator.main.0.weight"] = torch.zeros(2)
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "last.ckpt")
    io = load_file(folder / "io.safetensors")
    tokenizer = open_published("taming", [tmp_path / "last.ckpt"], image_size=size(io))
    assert torch.equal(tokenizer.network.encode(io["image"]).flatten(1), io["indices"])
    assert tokenizer.preprocessing.value_range == (-1.0, 1.0)
    save_file({k: v for k, v in wrapped.items() if "loss" not in k}, tmp_path / "flat.safetensors")
    flat = open_published("taming", [tmp_path / "flat.safetensors"], image_size=size(io))
    assert flat.hash == tokenizer.hash


def taming_weights(folder) -> dict[str, Tensor]:
    out = {}
    for half in ("encoder", "decoder"):
        for key, tensor in torch.load(folder / f"{half}_pytorch_model.bin").items():
            key = key.replace("_embedding", "embedding")
            whole = key.startswith(("quant_conv", "post_quant_conv", "quantize"))
            out[key if whole else f"{half}.{key}"] = tensor
    return out


def test_the_fixtures_configs_are_read_from_their_weights(shared):
    """What the adapters derive is what config.json says, which they do not read."""
    for name, fixture, files in (
        ("commavq", "commavq_vqvae", ["encoder_pytorch_model.bin", "decoder_pytorch_model.bin"]),
        ("magvit2", "magvit2_lfq", ["weights.safetensors"]),
        ("magvit2", "magvit2_ckpt", ["weights.pt"]),
        ("driving_simulator", "driving_tokenizer", ["weights.pt"]),
    ):
        folder, config = parity(shared, fixture)
        said = config.get("model") or config["hparams"]
        pixels = size(load_file(folder / "io.safetensors"))
        files = [folder / file for file in files]
        found = open_published(name, files, image_size=pixels).network.config
        assert found.width == said.get("ch", said.get("base_channels"))
        assert list(found.multipliers) == said["ch_mult"]
        assert found.num_res_blocks == said["num_res_blocks"]
        assert found.z_channels == said["z_channels"]
        levels = [said["resolution"] >> n for n in found.attention_levels if "resolution" in said]
        assert levels == said.get("attn_resolutions", [])
