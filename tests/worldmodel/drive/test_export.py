"""A dream in one file: the tokens of Python's decoder, from disk, with nothing else at hand."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import DESKTOP, PHONE, opened, overflow, until
from tiny_world import NAMES, SPEC, make_world_model, write_world

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import make_drives
from drives.clips.preprocessing import to_uint8
from drives.tokens.store import TokenStore
from tokenizer.load import Tokenizer
from tokenizer.networks.autoencoder import Autoencoder
from tokenizer.networks.config import AutoencoderConfig
from tokenizer.networks.kinds import build_network
from tokenizer.quantizers.config import VQConfig
from training.cli import plain
from training.errors import BadInput
from training.help import composed
from worldmodel.codec.exact import numbers
from worldmodel.codec.exact.mode import ExactArithmetic
from worldmodel.decoding import Sampling
from worldmodel.drive.__main__ import exported, session_of, world_of
from worldmodel.drive.export import build, tensors, write
from worldmodel.drive.export.write import check_export, export_place, write_export
from worldmodel.drive.session import DriveSession
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.env.controls import controls_of
from worldmodel.env.starts import Starts
from worldmodel.env.world import DreamWorld
from worldmodel.load import WorldModel

# A step under given rows of actions, with what a test compares.
STEP = """rows => ask("step", { actions: rows }).then(said => (
  { tokens: said.tokens, bits: said.bits, pixels: [...said.pixels], time: said.time }))"""


def compare(page: Any, session: DriveSession, rows: list[np.ndarray]) -> None:
    """Steps of the page and of a session: tokens, bits and pixels."""
    for row in rows:
        said = page.evaluate(STEP, row.tolist())
        ours = session.dream.step(torch.from_numpy(row))
        assert said["tokens"] == ours.tokens.flatten(1).tolist()
        bits = ours.entropy.flatten(1).numpy() / np.log(2)
        assert np.allclose(said["bits"], bits, atol=1e-4)
    assert session.world.tokenizer is not None
    network = session.world.tokenizer.network
    assert isinstance(network, Autoencoder)
    codes = network.quantizer.decode(session.dream.grids[-1])  # the file holds these
    with torch.inference_mode(), ExactArithmetic(network, numbers.BYTES):
        frames = network.reconstruct(codes)
    assert said["pixels"] == to_uint8(frames).permute(0, 2, 3, 1).flatten().tolist()
    apart = to_uint8(frames).float() - session.dream.frames()[:, 0].float()
    assert apart.abs().mean() < 1  # levels, from the network in float32


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DriveSession]:
    """The file of the shipped model, on two short drives of its own, and the same in Python."""
    folder = tmp_path_factory.mktemp("export")
    config = CarRacingConfig(num_train=1, num_val=0, num_test=1, seconds=4.0)
    make_drives(folder / "drives", config, num_workers=0)
    words = ["ckpt=carracing", f"data.root={folder}/drives", f"paths.data={folder}/data"]
    cfg = composed("commands/drive", [*words, f"export={folder}/dream.html"])
    assert "needs no server" in exported(cfg)
    return folder / "dream.html", session_of(plain(cfg), world_of(plain(cfg)), "portable")


@pytest.mark.slow
def test_the_shipped_dream_from_disk_is_that_of_python(
    shipped: tuple[Path, DriveSession],
) -> None:
    file, session = shipped
    assert file.stat().st_size < 20_000_000
    rng = np.random.default_rng(0)
    start = session.world.starts[session.clips[2]]
    driven = start.recorded[:3].numpy()[:, None]
    rows = [(row + rng.normal(0, 0.05, row.shape)).astype(np.float32) for row in driven]
    with opened(file, DESKTOP) as page:
        until(page, "Boolean(state)")
        page.evaluate("ask('start', { clip: 2, seed: 7 })")
        session.start(session.clips[2], seed=7)
        compare(page, session, rows)
        page.evaluate("ask('rewind', { num: 2 })")
        session.rewind(2)
        compare(page, session, [rows[2]])  # other actions, the same numbers
        page.evaluate("ask('branch', { num: 2 })")
        session.branch(2)
        compare(page, session, [np.concatenate([rows[1], rows[0]])])


@pytest.mark.slow
def test_someone_drives_the_file_by_keyboard(shipped: tuple[Path, DriveSession]) -> None:
    with opened(shipped[0], DESKTOP) as page:
        until(page, "Boolean(state)")
        assert page.locator("#clip option").count() > 2
        page.keyboard.down("ArrowLeft")
        page.keyboard.press("Space")
        until(page, "state.time >= 3")
        page.keyboard.up("ArrowLeft")
        low, high = page.evaluate("[about.columns[0].low, about.columns[0].high]")
        assert page.evaluate("state.actions[0][0]") < low + 0.4 * (high - low)
        page.keyboard.press("Space")
        until(page, "!playing")
        page.check("#real")
        until(page, "document.querySelector('.real canvas')?.width === 64")
        page.locator("body").press("r")
        until(page, "state.time === 0")
        page.locator("body").press("f")  # as recorded
        page.locator("body").press(".")
        until(page, "state.time === 1")
        recorded = page.evaluate("state.actions[0]")
        start = shipped[1].world.starts[shipped[1].clips[0]]
        assert np.allclose(recorded, start.recorded[0].numpy())
        assert page.is_hidden("#saving")
        assert page.is_hidden("#error")
        page.set_viewport_size({"width": PHONE, "height": 844})
        assert overflow(page) == 0
        page.uncheck("#real")
        until(page, "!document.querySelector('.real')")
        page.evaluate("scrollTo(0, 0)")  # dream and pad are seen at once
        bottom = "document.getElementById('pad').getBoundingClientRect().bottom"
        assert page.evaluate(bottom) <= 844
        assert page.evaluate("fetch('https://example.com').then(() => 1, () => 0)") == 0


@pytest.mark.slow
def test_a_browser_without_simd_is_told(shipped: tuple[Path, DriveSession]) -> None:
    with opened(shipped[0], DESKTOP) as page:
        page.add_init_script("WebAssembly.validate = () => false")
        page.reload()
        until(page, "!document.getElementById('error').hidden")
        assert "no WebAssembly with SIMD" in page.inner_text("#error")


def tiny(model: WorldModel, root: str, actions: bool = True) -> DreamWorld:
    """A world of a tiny model, with an autoencoder that no one has trained."""
    store = TokenStore(Path(root))
    torch.manual_seed(1)
    config = AutoencoderConfig(
        image_size=(16, 24),
        quantizer=VQConfig(vocab_size=11, code_dim=5),
        patch=4,
        channels=(12, 20),
        upsampled=(8,),
    )
    network = build_network(config)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    controls = controls_of(store.all, NAMES) if actions else None
    return DreamWorld(
        model, Tokenizer(network, "test", {}), controls, Starts(store.drives("test"), 2), 10.0
    )


def binned() -> WorldModel:
    ends = {"action_min": (-1.0, 0.0, 0.0), "action_max": (1.0, 1.0, 9.0)}
    return make_world_model("gpt", actions="binned", num_bins=8, **ends)


def session_in(world: DreamWorld, out: Path, **sampling: Any) -> DriveSession:
    dream = world.dream(Sampling(**sampling), method="portable")
    return DriveSession(world, dream, 10.0, out)


@pytest.mark.slow
def test_networks_of_other_shapes_dream_alike(tmp_path: Path) -> None:
    """Biases, odd sizes, shared heads, no look-back, no actions; every way to sample."""
    _, root = write_world(tmp_path)
    plain_model = make_world_model()
    other = GPTConfig(
        dim=18,
        num_layers=1,
        num_heads=3,
        num_kv_heads=1,
        bias=True,
        gelu="none",
        qk_norm=False,
        look_back=0,
        context_steps=3,
        layout=LayoutConfig(actions="none"),
    )
    torch.manual_seed(2)
    network = build_dynamics(other, SPEC, num_actions=3).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter) * (parameter.ndim > 1)
    unlike = replace(plain_model, network=network)
    cases = [
        (plain_model, True, {"temperature": 0.7, "top_k": 0}),
        (plain_model, True, {"top_k": 4, "top_p": 0.8}),
        (unlike, False, {"greedy": True}),
        (unlike, False, {"top_p": 0.9, "seed": 3}),
    ]
    rng = np.random.default_rng(0)
    for number, (model, acts, sampling) in enumerate(cases):
        session = session_in(tiny(model, root, acts), tmp_path, **sampling)
        write_export(session, tmp_path / f"{number}.html")
        session.start(session.clips[0])
        with opened(tmp_path / f"{number}.html", DESKTOP) as page:
            until(page, "Boolean(state)")
            rows = rng.uniform(-1, 1, (5, 1, 3)).astype(np.float32)
            compare(page, session, list(rows))


def test_what_no_file_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, root = write_world(tmp_path)
    file = str(tmp_path / "dream.html")
    world = tiny(make_world_model(), root)
    assert export_place(file) == Path(file)
    check_export(world)
    refused = {
        "this is a WholeFrame": tiny(make_world_model("whole"), root),
        "give tokenizer=FOLDER": replace(world, tokenizer=None),
        r"layout\.actions=binned, and .* none or continuous": tiny(binned(), root),
    }
    for words, other in refused.items():
        with pytest.raises(BadInput, match=words):
            check_export(other)
    with pytest.raises(BadInput, match="is a folder"):
        export_place(str(tmp_path))
    monkeypatch.setattr(tensors, "MOST_TERMS", 20)
    with pytest.raises(BadInput, match=r"export: .* sums \d+ products, and the file 20 at most"):
        check_export(world)
    monkeypatch.setattr(tensors, "MOST_TERMS", 2000)
    monkeypatch.setattr(write, "MOST_BYTES", 1000)
    with pytest.raises(BadInput, match=r"would have 0\.\d MB.*smaller model"):
        check_export(world)
    with pytest.raises(BadInput, match=r"would have 0\.\d MB.*smaller model"):
        write_export(session_in(world, tmp_path), Path(file))
    assert not Path(file).exists()
    Path(file).write_text("mine")
    with pytest.raises(BadInput, match="exists already"):
        export_place(file)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("decoding.method=raster", r"export: decoding\.method='raster': choose one of"),
        ("decoding.window=roll", r"export: decoding\.window='roll': choose one of"),
        ("export=''", "export=''.*empty"),
    ],
)
def test_settings_that_no_file_has_are_refused(tmp_path: Path, setting: str, message: str) -> None:
    ckpt, root = write_world(tmp_path)
    words = [f"ckpt={ckpt}", f"data.root={root}", f"export={tmp_path}/dream.html", setting]
    with pytest.raises(BadInput, match=message):
        exported(composed("commands/drive", words))


def test_the_kernel_is_that_of_its_source(tmp_path: Path) -> None:
    module = build.KERNEL.read_bytes()
    assert build.source_hash().encode() in module, "python -m worldmodel.drive.export.build"
    version = "clang version 14.0.6"
    clang = shutil.which("clang")
    if clang is None or shutil.which("wasm-ld") is None:
        return
    told = subprocess.run([clang, "--version"], capture_output=True, text=True, check=True)
    if version in told.stdout:
        build.build(tmp_path / "kernel.wasm")
        assert (tmp_path / "kernel.wasm").read_bytes() == module
