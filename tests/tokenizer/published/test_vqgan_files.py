"""Files of LlamaGen, Open-MAGVIT2 and IBQ: as laid out, with the numbers of a second network."""

import argparse
import re

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from named_modules import Traced
from torch import Tensor
from vqgan_by_name import ByName

from tokenizer.networks.config import VQGANConfig
from tokenizer.networks.kinds import build_network
from tokenizer.published import open_published
from training.errors import BadInput

SIZE = [8, 12]
LAYOUTS = {"llamagen": ("llamagen", 8), "open_magvit2": ("open_magvit2", 18), "ibq": ("taming", 12)}


def run(layout: str, dim: int, weights: dict[str, Tensor] | None = None):
    """Frames, tokens and reconstruction of the second network, and its weights."""
    network = ByName(layout, dim)
    network.weights = dict(weights or {})
    frames = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        tokens = network.tokens(network.latents(frames))
        return frames, tokens, network.frames(network.looked_up(tokens)), network.weights


def lightning(weights: dict[str, Tensor], averages: dict[str, Tensor]):
    """A checkpoint as TencentARC's training leaves it."""
    losses = {
        "loss.discriminator.main.0.weight": torch.ones(2),
        "loss.perceptual_loss.lin0": torch.ones(1),
    }
    averages = averages | {"loss.discriminator.main.0.weight": torch.ones(2)}
    extra = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(-1)}
    named = {f"model_ema.{key.replace('.', '')}": value for key, value in averages.items()}
    return {
        "epoch": 3,
        "state_dict": {**weights, **losses, **extra, **named},
        "callbacks": {ModelCheckpoint: {"best_model_score": torch.ones(1)}},
        "optimizer_states": [{"state": {0: {"step": torch.ones(())}}}],
    }


def llamagen(weights: dict[str, Tensor], key: str = "model"):
    """A checkpoint as LlamaGen's training leaves it."""
    used = {"quantize.codebook_used": torch.zeros(16)}
    return {key: {**weights, **used}, "steps": 7, "args": argparse.Namespace(vq_model="VQ-16")}


def check(name: str, files, expected, **options) -> None:
    frames, tokens, reconstruction, _ = expected
    tokenizer = open_published(name, files, image_size=SIZE, **options)
    with torch.no_grad():
        assert torch.equal(tokenizer.encode(frames), tokens)
        codes = tokenizer.network.quantizer.decode(tokens)
        ours = tokenizer.network.reconstruct(codes)
    torch.testing.assert_close(ours, reconstruction, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", ["open_magvit2", "ibq"])
def test_tencents_raw_and_averaged_weights(name, tmp_path):
    raw = run(*LAYOUTS[name])
    weights = raw[-1]
    averages = {k: v + 0.05 * v.std(correction=0) * torch.randn_like(v) for k, v in weights.items()}
    file = tmp_path / "imagenet_256.ckpt"
    torch.save(lightning(weights, averages), file)
    check(name, [file], raw, weights="raw")
    averaged = run(*LAYOUTS[name], averages)
    check(name, [file], averaged)
    assert not torch.equal(raw[1], averaged[1])
    assert len(raw[1].unique()) > 3
    left_out = open_published(name, [file], image_size=SIZE).manifest["published"]["left_out"]
    assert {"loss.perceptual_loss.lin0", "model_ema.decay", "raw decoder.conv_out.bias"} <= {
        *left_out
    }


def test_codes_of_ibq_are_not_the_nearest_ones(tmp_path):
    """Opened by taming's rule, the same weights give other tokens."""
    expected = run("taming", 12)
    torch.save(expected[-1], tmp_path / "flat.pt")
    options = {"image_size": SIZE}
    ibq = open_published("ibq", [tmp_path / "flat.pt"], weights="raw", **options)
    taming = open_published("taming", [tmp_path / "flat.pt"], **options)
    assert torch.equal(ibq.encode(expected[0]), expected[1])
    assert not torch.equal(taming.encode(expected[0]), expected[1])
    torch.save(lightning(expected[-1], expected[-1]), tmp_path / "ibq.ckpt")
    with pytest.raises(BadInput, match="tokenizer=ibq"):
        open_published("taming", [tmp_path / "ibq.ckpt"], **options)


@pytest.mark.parametrize("key", ["model", "ema"])
@pytest.mark.parametrize("zipped", [True, False])
def test_llamagens_checkpoint(key, zipped, tmp_path):
    """Its arguments are a Namespace; before torch 1.6 a file was no archive."""
    expected = run(*LAYOUTS["llamagen"])
    found = (
        llamagen(expected[-1], key) | {"model": expected[-1]}
        if key == "ema"
        else llamagen(expected[-1])
    )
    torch.save(found, tmp_path / "vq.pt", _use_new_zipfile_serialization=zipped)
    check("llamagen", [tmp_path / "vq.pt"], expected)


def halves(weights: dict[str, Tensor], folder, wrapper: str = ""):
    """The archives in which VaViM published it, each with its own copy of the codebook."""
    used = {"quantize.codebook_used": torch.zeros(16)}
    for half, starts in (
        ("encoder", ("encoder", "quant_conv")),
        ("decoder", ("decoder", "post_q")),
    ):
        kept = {k: v for k, v in {**weights, **used}.items() if k.startswith((*starts, "quantize"))}
        tree = Traced({f"{wrapper}{key}": value for key, value in kept.items()})
        archive = torch.jit.trace(tree, torch.ones(1))
        archive.save(str(folder / f"VQ_ds16_16384_llamagen_{half}.jit"))
    return sorted(folder.glob("*.jit"))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("wrapper", ["", "model."])
def test_vavims_halves(wrapper, tmp_path):
    expected = run(*LAYOUTS["llamagen"])
    files = halves(expected[-1], tmp_path, wrapper)
    check("llamagen", files, expected)
    check("llamagen", files[::-1], expected)
    with pytest.raises(BadInput, match="holds no decoder"):
        open_published("llamagen", [tmp_path / "VQ_ds16_16384_llamagen_encoder.jit"])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_halves_of_two_tokenizers_and_frozen_archives_are_refused(tmp_path):
    weights = run(*LAYOUTS["llamagen"])[-1]
    for name, change in (("a", 0.0), ("b", 1.0)):
        (tmp_path / name).mkdir()
        halves({k: v + change for k, v in weights.items()}, tmp_path / name)
    mixed = [
        next((tmp_path / n).glob(f"*{half}.jit"))
        for n, half in (("a", "encoder"), ("b", "decoder"))
    ]
    with pytest.raises(BadInput, match=r"another quantize\.\w+"):
        open_published("llamagen", mixed)
    frozen = torch.jit.freeze(torch.jit.trace(Traced(weights).eval(), torch.ones(1)))
    frozen.save(str(tmp_path / "frozen.jit"))
    with pytest.raises(BadInput, match="holds no tensors by name"):
        open_published("llamagen", [tmp_path / "frozen.jit"])


def test_each_family_names_the_adapter_of_another(tmp_path):
    for name, (layout, dim) in LAYOUTS.items():
        torch.save(run(layout, dim)[-1], tmp_path / f"{name}.pt")
    for file, given, needed in (
        ("llamagen", "taming", "tokenizer=llamagen"),
        ("llamagen", "open_magvit2", "tokenizer=llamagen"),
        ("open_magvit2", "magvit2", "tokenizer=open_magvit2"),
        ("open_magvit2", "ibq", "tokenizer=open_magvit2"),
        ("ibq", "llamagen", "tokenizer=taming, ibq"),
    ):
        options = {"weights": "raw"} if given in ("open_magvit2", "ibq") else {}
        with pytest.raises(BadInput, match=re.escape(needed)):
            open_published(given, [tmp_path / f"{file}.pt"], **options)
    with pytest.raises(BadInput, match="no averaged weights"):
        open_published("ibq", [tmp_path / "ibq.pt"])


def test_sizes_are_those_of_the_published_files():
    """72 M is LlamaGen's own figure; 0.12 and 0.17 GB are the sizes of VaViM's halves."""
    from tokenizer.published.vqgan_keys import CODEBOOK, codebook

    with torch.device("meta"):
        book = codebook({CODEBOOK: torch.empty(16384, 8)}, "", normalize=True)
        network = build_network(VQGANConfig(quantizer=book))
    encoder, decoder = (
        sum(t.numel() for part in parts for t in part.parameters())
        for parts in (
            (network.encoder, network.quant_conv),
            (network.decoder, network.post_quant_conv),
        )
    )
    assert round((encoder + decoder + 16384 * 8) / 1e6) == 72
    assert round(4e-9 * encoder, 2) == 0.12
    assert round(4e-9 * decoder, 2) == 0.17


def altered(key: str, value: Tensor, tmp_path):
    torch.save({**run(*LAYOUTS["llamagen"])[-1], key: value}, tmp_path / "altered.pt")
    return [tmp_path / "altered.pt"]


@pytest.mark.parametrize(
    "key",
    [
        "encoder.conv_in.weight",
        "encoder.conv_out.weight",
        "encoder.conv_blocks.1.res.0.conv1.weight",
        "quantize.embedding.weight",
    ],
)
@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.zeros(0, 0, 0, 0), torch.zeros(3)])
def test_sizes_are_not_read_off_tensors_of_another_kind(key, value, tmp_path):
    with pytest.raises(BadInput, match=f"{re.escape(key)} is .*sides of at least 1"):
        open_published("llamagen", altered(key, value, tmp_path), image_size=SIZE)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(1).expand(1 << 40, 8), "more than the file holds"),
        (torch.zeros(48, 8, dtype=torch.complex64), "no dense tensor of real numbers"),
        (torch.zeros(48, 8).to_sparse(), "no dense tensor of real numbers"),
    ],
)
def test_tensors_that_are_larger_than_their_file_or_of_another_kind_are_refused(
    value, words, tmp_path
):
    with pytest.raises(BadInput, match=words):
        open_published("llamagen", altered("quantize.embedding.weight", value, tmp_path))


def test_video_occupancy_models_frames_lack_a_bracket(tmp_path):
    """x / 255 - mean / std go in and come out; read as taming's own, tokens would be others."""
    network, generator = ByName("taming", 12), torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (2, 3, *SIZE), generator=generator)
    means, stds = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    shift = (torch.tensor(means) / torch.tensor(stds))[:, None, None]
    with torch.no_grad():
        latents = network.latents(pixels / 255 - shift).movedim(1, -1)
        tokens = torch.cdist(latents.flatten(0, 2), network.codes()).argmin(1)
        tokens = tokens.view(latents.shape[:3])
        theirs = network.frames(network.looked_up(tokens))
    file = tmp_path / "cheetah_vq_vae_model.pth"
    torch.save({**network.weights, "loss.discriminator.main.0.weight": torch.ones(2)}, file)
    opened = open_published("video_occupancy", [file], image_size=SIZE)
    frames = pixels / 127.5 - 1
    assert torch.equal(opened.encode(frames), tokens)
    with torch.no_grad():
        ours = opened.network.reconstruct(opened.network.quantizer.decode(tokens))
    torch.testing.assert_close(ours, 2 * (theirs + shift) - 1, atol=5e-4, rtol=0)
    other = open_published("taming", [file], image_size=SIZE)
    assert not torch.equal(other.encode(frames), tokens)
    assert opened.manifest["published"]["left_out"] == ["loss.discriminator.main.0.weight"]
