"""Foreign files: every key accounted for, nothing of theirs run; what comes of them works."""

import importlib
import json
import os
import re
import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from drives.clips.preprocessing import to_pixels
from drives.folder import open_drives
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.video import read_frames
from drives.writing import write_drive
from tokenizer.decode import check_pair, decode_frames
from tokenizer.encode import encode_drives
from tokenizer.load import load_tokenizer
from tokenizer.networks.config import VQGANConfig
from tokenizer.networks.kinds import build_network
from tokenizer.published import convert, open_published
from tokenizer.published.vqgan_keys import CODEBOOK, LAYOUTS, codebook, foreign_name
from tokenizer.quantizers.config import FSQConfig, LFQConfig
from training.errors import BadInput

HALVES = ("encoder_pytorch_model.bin", "decoder_pytorch_model.bin")


@pytest.fixture
def halves(shared):
    return [shared / "parity" / "commavq_vqvae" / name for name in HALVES]


@pytest.fixture
def comma(shared):
    """What commaVQ's fixture says of itself: its size as [height, width], grid and codes."""
    said = json.loads((shared / "parity/commavq_vqvae/config.json").read_text())
    return Facts(
        [said["image_height"], said["image_width"]], said["grid"], said["model"]["vocab_size"]
    )


@pytest.fixture
def magvit2(shared):
    """The file of the fixture of a MAGVIT2 checkpoint, and the size of its frames."""
    folder = shared / "parity" / "magvit2_ckpt"
    return folder / "weights.pt", json.loads((folder / "config.json").read_text())["image"]


class Facts(NamedTuple):
    size: list[int]
    grid: list[int]
    codes: int


@pytest.fixture
def altered(halves, tmp_path):
    """`altered(change)`: the two halves of commaVQ, the encoder's state dict changed."""

    def make(change):
        state = torch.load(halves[0])
        change(state)
        torch.save(state, tmp_path / HALVES[0])
        return [tmp_path / HALVES[0], halves[1]]

    return make


def small_frames(n=2, height=16, width=32):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


def test_published_sizes_are_those_of_the_published_files():
    """SEEDS: parameters counted from the sizes of the downloads."""

    def count(*parts):
        return sum(t.numel() for part in parts for t in part.parameters())

    with torch.device("meta"):
        table = {CODEBOOK: torch.empty(1024, 256)}
        comma = build_network(VQGANConfig(quantizer=codebook(table, "")))
        lfq = VQGANConfig((256, 256), LFQConfig(18), "magvit2", attention_levels=())
        magvit2 = build_network(lfq)
        driving = build_network(VQGANConfig((288, 512), FSQConfig([8, 8, 8, 6, 5]), width=256))
    assert count(comma.encoder, comma.quant_conv, comma.quantizer) == 29_626_112
    assert count(comma.decoder, comma.post_quant_conv, comma.quantizer) == 42_777_731
    assert round(count(magvit2.encoder) / 1e6, 2) == 24.96
    assert round(count(magvit2.decoder) / 1e6, 2) == 40.53
    assert round(count(driving) / 1e6, 1) == 282.1
    assert comma.config.grid == (1, 8, 16)
    assert driving.config.grid == (1, 18, 32)


def test_converted_and_opened_directly_are_one_tokenizer(halves, comma, tmp_path):
    options = {"image_size": comma.size, "crop": "cover"}
    assert convert("commavq", halves, tmp_path / "out", **options) == []
    converted = load_tokenizer(tmp_path / "out")
    direct = open_published("commavq", halves, **options)
    assert converted.hash == direct.hash
    assert converted.spec(20) == direct.spec(20)
    assert converted.published_as == "commavq"
    frames = to_pixels(converted.fit(small_frames()))
    assert torch.equal(converted.encode(frames), direct.encode(frames))
    with pytest.raises(BadInput, match="exists already"):
        convert("commavq", halves, tmp_path / "out", **options)


@pytest.fixture
def drive(tmp_path):
    actions = np.zeros((5, 1))
    meta = {"fps": 20, "split": "train", "source": "noise", "licence": "CC0"}
    write_drive(tmp_path / "drives" / "a", small_frames(5), actions, ["steering"], meta)
    return open_drives(tmp_path / "drives")[0]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`command("encode", "out=...")`: what python -m tokenizer.encode does."""
    monkeypatch.setenv("DASHCAST_CACHE", str(tmp_path / "cache"))

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        importlib.import_module(f"tokenizer.{name}").main()

    return run


def test_the_command_converts_and_its_result_encodes_and_decodes(
    halves, comma, drive, tmp_path, command, capsys
):
    (height, width), (rows, columns), codes = comma
    arguments = ["tokenizer=commavq", f"ckpt={halves[0]},{halves[1]}"]
    asked = f"options.image_size=[{height},{width}]"
    command("convert", *arguments, asked, f"out={tmp_path}/tok")
    told = f"{height}x{width} pixels to {rows}x{columns} tokens of {codes}"
    assert told in capsys.readouterr().out
    store = encode_drives([drive], tmp_path / "tok", tmp_path / "store", ["steering"])
    tokenizer = load_tokenizer(tmp_path / "tok")
    frames = to_pixels(tokenizer.fit(np.stack(list(drive.frames()))))
    tokens = store.drives("train")[0].tokens
    assert torch.equal(tokenizer.encode(frames), torch.from_numpy(tokens.astype(int)))
    assert TokenStore(tmp_path / "store").spec.preprocessing == tokenizer.preprocessing
    assert tokenizer.preprocessing.value_range == (0.0, 255.0)
    check_pair(store, tokenizer)
    assert next(decode_frames(tokens, tokenizer)).shape == (height, width, 3)


def test_published_files_are_given_to_encode_and_decode_directly(
    halves, comma, drive, tmp_path, command
):
    height, width = comma.size
    asked = f"options.image_size=[{height},{width}]"
    arguments = ["tokenizer=commavq", f"ckpt={halves[0]},{halves[1]}", asked]
    store = tmp_path / "store"
    command("encode", *arguments, f"data.root={drive.path.parent}", f"out={store}")
    command("decode", *arguments, f"store={store}", "drive=a", f"out={tmp_path}/a.mp4")
    direct = open_published("commavq", halves, image_size=comma.size)
    assert TokenStore(store).spec == direct.spec(20)
    tokens = TokenStore(store).drives("train")[0].tokens
    frames = np.stack(list(read_frames(tmp_path / "a.mp4")))
    decoded = np.stack(list(decode_frames(tokens, direct)))
    assert frames.shape == decoded.shape == (5, height, width, 3)
    assert len(list((tmp_path / "cache" / "tokenizers").glob("commavq-*/"))) == 1


def test_a_store_of_published_tokens_takes_the_tokenizer_published_with_it(halves, comma, tmp_path):
    tokenizer = open_published("commavq", halves, image_size=comma.size)
    spec = replace(tokenizer.spec(20), tokenizer="commavq")
    writer = TokenStoreWriter(tmp_path / "store", spec, ())
    writer.write("a", "train", np.zeros((3, *comma.grid), int), np.zeros((3, 0), np.float32))
    store = TokenStore(tmp_path / "store")
    check_pair(store, tokenizer)
    taller = open_published("commavq", halves, image_size=[2 * comma.size[0], comma.size[1]])
    with pytest.raises(BadInput, match="its grid is"):
        check_pair(store, taller)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("down.1.block.0.norm1.bias"), "lacks encoder.down.1.block.0.norm1.bias"),
        (lambda s: s.update(extra=torch.ones(1)), "no place for: encoder.extra"),
        (lambda s: s.update({"down.0.attn.0.q.bias": torch.ones(1)}), "attn.0.k.bias"),
        (lambda s: s.update({"mid.attn_1.q.bias": torch.ones(7)}), r"attn_1.q.bias is \(7,\)"),
        (lambda s: s["conv_in.bias"].fill_(torch.nan), "conv_in.bias is not finite"),
        (lambda s: s["quantize._embedding.weight"].add_(1), "codebooks differ"),
        (lambda s: s.pop("quantize._embedding.weight"), "_embedding.weight is missing"),
        (lambda s: s.pop("quant_conv.weight"), "neither the encoder nor the decoder"),
        (lambda s: s.update(note="hello"), "not tensors are: note"),
    ],
)
def test_every_key_is_used_once_or_named(altered, comma, change, words):
    with pytest.raises(BadInput, match=words):
        open_published("commavq", altered(change), image_size=comma.size)


def test_names_map_one_to_one():
    """No two weights share a foreign name, in any layout."""
    for name, layout in LAYOUTS.items():
        config = VQGANConfig((32, 32), style=layout.style, width=32, attention_levels=(0, 4))
        with torch.device("meta"):
            net = build_network(config)
        names = [foreign_name(key, name, 5) for key in net.state_dict()]
        assert len(set(names)) == len(names)
        assert not [name for name in names if re.search(r"\.layers|\.shortcut|(down|up)_\d", name)]


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("exploited",)


def test_nothing_of_a_file_is_run(halves, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Exploit()}, tmp_path / "bad.ckpt")
    with pytest.raises(BadInput, match="refused"):
        open_published("taming", [tmp_path / "bad.ckpt"])
    torch.save({"state_dict": Exploit()}, tmp_path / "old", _use_new_zipfile_serialization=False)
    with pytest.raises(BadInput, match="refused"):
        open_published("taming", [tmp_path / "old"])
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "scripted.ckpt"))
    with pytest.raises(BadInput, match="refused"):
        open_published("taming", [tmp_path / "scripted.ckpt"])
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_lightning_callbacks_in_a_checkpoint_are_left_aside(magvit2, tmp_path, zipped):
    """Real taming and 1xgpt checkpoints name the class of their callbacks; of any age of torch."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    file, size = magvit2
    found = torch.load(file)
    found["callbacks"] = {ModelCheckpoint: {"best_model_score": torch.ones(1)}}
    torch.save(found, tmp_path / "last.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(Exception, match="ModelCheckpoint"):
        torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert open_published("magvit2", [tmp_path / "last.ckpt"], image_size=size).hash


@pytest.mark.parametrize(
    ("name", "folder", "words"),
    [
        ("taming", "magvit2_ckpt/weights.pt", "magvit2 style"),
        ("magvit2", "driving_tokenizer/weights.pt", "taming style"),
        ("taming", "driving_tokenizer/weights.pt", "no codebook"),
        ("driving_simulator", "magvit2_lfq/weights.safetensors", "magvit2 style"),
        ("commavq", "magvit2_lfq/weights.safetensors", "two: encoder_pytorch_model.bin"),
        ("magvit2", "vam_mupgpt2/README.md", "refused"),
        ("magvit2", "nowhere.ckpt", "no such file"),
        ("magvit3", "nowhere.ckpt", "there are: commavq, magvit2"),
    ],
)
def test_other_families_are_named(shared, name, folder, words):
    with pytest.raises(BadInput, match=words):
        open_published(name, [shared / "parity" / folder])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "mean"}, "choose one of raw, ema"),
        ({"bit_order": "middle"}, "little, big"),
        ({"image_size": "one row more"}, "multiples of 2"),
        ({"crop": "comma"}, "has no such option; it has: image_size, weights"),
    ],
)
def test_wrong_options_are_refused(magvit2, options, words):
    file, (height, width) = magvit2
    if "image_size" in options:
        options = {"image_size": [height + 1, width]}
    with pytest.raises(BadInput, match=words):
        open_published("magvit2", [file], **{"image_size": [height, width], **options})


def test_averaged_weights_that_are_not_there_are_not_replaced_by_others(shared, tmp_path):
    folder = shared / "parity"
    with pytest.raises(BadInput, match="no averaged weights"):
        open_published("magvit2", [folder / "magvit2_lfq" / "weights.safetensors"], weights="ema")
    found = torch.load(folder / "magvit2_ckpt" / "weights.pt")
    del found["state_dict"]["model_ema.encoderconv_inweight"]
    torch.save(found, tmp_path / "last.ckpt")
    with pytest.raises(BadInput, match=r"lacks encoder\.conv_in\.weight"):
        open_published("magvit2", [tmp_path / "last.ckpt"], weights="ema")
    found["state_dict"]["model_ema.stranger"] = torch.ones(1)
    torch.save(found, tmp_path / "last.ckpt")
    with pytest.raises(BadInput, match=r"averages of no weight: model_ema\.stranger"):
        open_published("magvit2", [tmp_path / "last.ckpt"], weights="ema")


def test_levels_come_from_the_file_or_the_option(shared, tmp_path):
    source = shared / "parity" / "driving_tokenizer"
    state = torch.load(source / "weights.pt")["model_state"]
    save_file(state, tmp_path / "flat.safetensors")
    with pytest.raises(BadInput, match="give levels"):
        open_published("driving_simulator", [tmp_path / "flat.safetensors"])
    said = json.loads((source / "config.json").read_text())
    levels = said["hparams"]["fsq_levels"]
    with pytest.raises(BadInput, match=f"{len(levels) - 1} levels"):
        open_published("driving_simulator", [tmp_path / "flat.safetensors"], levels=levels[1:])
    options = {"levels": levels, "image_size": said["image"]}
    opened = open_published("driving_simulator", [tmp_path / "flat.safetensors"], **options)
    io = load_file(source / "io.safetensors")
    assert torch.equal(opened.encode(io["image"]), io["indices"])


def test_a_tokenizer_says_what_it_takes(halves, comma):
    (height, width), (rows, columns), codes = comma
    tokenizer = open_published("commavq", halves, image_size=comma.size)
    right = torch.zeros(1, 3, height, width)
    tokenizer.encode(right)
    for frames, words in (
        (torch.zeros(1, 3, 2 * height, width), rf"\({height}, {width}\)"),
        (right[:0], "at least one"),
        (right[:, :1], "RGB"),
        (right + 200, r"in \[-1, 1\]"),
        (right * torch.nan, r"in \[-1, 1\]"),
    ):
        with pytest.raises(BadInput, match=words):
            tokenizer.encode(frames)
    for value, words in ((codes, rf"0\.\.{codes - 1}"), (-1, r"-1\.\.-1")):
        with pytest.raises(BadInput, match=words):
            tokenizer.decode(torch.full((1, rows, columns), value))
    for shape, words in (
        ((0, rows, columns), "at least one grid"),
        ((1, columns, rows), rf"this tokenizer's are \[steps {rows} {columns}\]"),
        ((1, 2 * rows, 2 * columns), "another image_size"),
        ((rows, columns), rf"are \[steps {rows} {columns}\]"),
    ):
        tokens = torch.zeros(shape, dtype=torch.long)
        with pytest.raises(BadInput, match=words):
            tokenizer.decode(tokens)
        with pytest.raises(BadInput, match=words):
            list(tokenizer.decode_stream([tokens]))
