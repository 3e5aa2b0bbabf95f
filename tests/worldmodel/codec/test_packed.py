"""A model in few bytes: what is opened is what codes, and damage is refused."""

import json
import lzma
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from codec_files import SMALL, SPEC, make_checkpoint, make_store, refused

from training.checkpoints.folder import OpenedCheckpoint
from training.config import AdamWConfig
from training.errors import BadInput
from training.optimization.self_compression import learn_depths, price, weight_bits
from worldmodel.codec.__main__ import main
from worldmodel.codec.container import digest_of
from worldmodel.codec.distributions.models import open_model
from worldmodel.codec.distributions.network import network_hash
from worldmodel.codec.packing.packed import LENGTHS, MAGIC, open_packed, packed, to_integers
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.load import WorldModel, manifest_of, world_model_from
from worldmodel.module import WorldModelModule
from worldmodel.windows import TokenClip

pytest.importorskip("constriction")


def test_fewer_bits_are_fewer_bytes_and_a_worse_copy(tmp_path: Path) -> None:
    ckpt = make_checkpoint(tmp_path / "ckpt")
    ours = torch.cat([p.flatten() for p in open_model(ckpt).network.parameters()])
    sizes, errors = [], []
    for bits in (3, 5, 8):
        file = tmp_path / f"{bits}.model"
        main(["pack", ckpt, "-o", str(file), "--bits", str(bits)])
        theirs = torch.cat([p.flatten() for p in open_model(str(file)).network.parameters()])
        sizes.append(file.stat().st_size)
        errors.append(((theirs - ours).norm() / ours.norm()).item())
    assert sizes == sorted(sizes)
    assert sizes[1] < 0.3 * 4 * len(ours)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01
    assert network_hash(open_packed(file).network) == network_hash(open_packed(file).network)


def test_rows_have_their_own_scales_of_the_least_error() -> None:
    torch.manual_seed(0)
    rows = torch.randn(3, 1000) * torch.tensor([[1.0], [100.0], [0.0]])
    rows[0, 0] = 30.0  # the range of one weight costs all others
    scales, whole = to_integers(rows, 7)
    assert whole.abs().max() <= 7
    assert scales[0] * 7 < 15
    far = (whole * scales[:, None] - rows).square().mean(1)
    assert far[0] < (30 / 7) ** 2 / 12 * 0.9
    assert far[1] < 100**2 * 0.05
    assert whole[2].abs().max() == 0


def test_what_a_packed_model_codes_it_decodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt, store = make_checkpoint(tmp_path / "ckpt"), make_store(tmp_path / "store")
    file, coded = str(tmp_path / "a.model"), str(tmp_path / "a.codec")
    main(["pack", ckpt, "-o", file, "--bits", "4"])
    main(["compress", store, "-o", coded, "--ckpt", file, *SMALL])
    assert "give that checkpoint" in refused(
        capsys, "decompress", coded, "-o", str(tmp_path / "no"), "--ckpt", ckpt
    )
    main(["decompress", coded, "-o", str(tmp_path / "back"), "--ckpt", file])


def crafted(file: Path, halves: bytes = bytes(2), **about: Any) -> Path:
    """A file with the right digest that no `pack` wrote."""
    parts = [
        lzma.compress(data, lzma.FORMAT_ALONE) for data in (json.dumps(about).encode(), halves)
    ]
    parts.append(bytes(4))
    body = MAGIC + LENGTHS.pack(*map(len, parts)) + b"".join(parts)
    file.write_bytes(body + digest_of(body))
    return file


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"tensors": {"a": [1, 2**34]}, "counts": [1, 1, 1]}, "17179869184 weights; 1073741824"),
        ({"tensors": {"a": [2**40, 2**40]}, "counts": [1, 1, 1]}, "weights; 1073741824 at most"),
        ({"tensors": {"a": [-1, 4]}, "counts": [1, 1, 1]}, "no such size"),
        ({"tensors": [], "counts": [1, 1, 1]}, "is no model"),
        ({"tensors": {}, "counts": [10**30]}, "is no model"),
        ({"tensors": {"a": [5]}, "counts": [1, 1, 1]}, "is no model"),
        ({"tensors": {"a": [1, 4]}, "counts": [0, 0, 0]}, "counts nothing"),
        ({"tensors": {"a": [1, 4]}, "counts": [3, -1, 3]}, "counts nothing"),
        ({"tensors": {"a": [1, 4]}, "counts": [], "on_grid": ["b"]}, "is no model"),
    ],
)
def test_crafted_files_are_refused_before_they_take_memory(
    about: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=says):
        open_packed(crafted(tmp_path / "a.model", **about))


def test_a_part_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldmodel.codec.packing.packed.MOST_VECTORS", 100)
    with pytest.raises(BadInput, match="a part holds more than 100 bytes"):
        open_packed(crafted(tmp_path / "a.model", bytes(10_000), tensors={}, counts=[1]))


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt, file = make_checkpoint(tmp_path / "ckpt"), tmp_path / "a.model"
    assert "bits=1" in refused(capsys, "pack", ckpt, "-o", str(file), "--bits", "1")
    main(["pack", ckpt, "-o", str(file)])
    assert "exists" in refused(capsys, "pack", ckpt, "-o", str(file))
    whole = file.read_bytes()
    for place in np.linspace(16, len(whole) - 1, 5).astype(int):
        for data in (whole[:place], whole[:place] + b"?" + whole[place + 1 :]):
            file.write_bytes(data)
            assert "truncated or altered" in refused(
                capsys, "compress", "none.npy", "-o", str(tmp_path / "o"), "--ckpt", str(file)
            )


TOKENS = 20_000  # that the models below are to code


def clips() -> torch.Tensor:
    """Frames that shift by one cell and change now and then."""
    generator = np.random.default_rng(0)
    frames = [generator.integers(0, 11, 6)]
    for _ in range(119):
        fresh = generator.integers(0, 11, 6)
        frames.append(np.where(generator.random(6) < 0.9, np.roll(frames[-1], 1), fresh))
    return torch.from_numpy(np.stack(frames)).view(-1, 3, 2, 3)


def trained(coded_tokens: int | None, steps: int = 100) -> WorldModel:
    torch.manual_seed(0)
    config = WholeFrameConfig(24, 2, 0, 2, context_steps=3, layout=LayoutConfig("none"))
    network, tokens = build_dynamics(config, SPEC, 0), clips()
    if coded_tokens:
        learn_depths(network)
    optimizer = torch.optim.Adam(network.parameters(), 4e-3)
    for step in range(steps):
        loss = network.loss(tokens)
        if coded_tokens:
            loss = loss + price(step, steps) * weight_bits(network) * np.log(2) / coded_tokens
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    manifest = manifest_of(config, SPEC, ()) | {"schema": 1}
    return world_model_from(OpenedCheckpoint(Path("a"), manifest, state))


@pytest.mark.slow
def test_learned_depths_cost_less_in_all_than_rounding(tmp_path: Path) -> None:
    total = {}
    for name, model in (("learned", trained(TOKENS)), ("plain", trained(None))):
        for bits in (2, 3, 5):
            file = tmp_path / f"{name}-{bits}.model"
            file.write_bytes(packed(model, bits))
            small = open_packed(file).network
            nats = small.loss(clips()).item()
            total[name, bits] = file.stat().st_size + TOKENS * nats / np.log(2) / 8
            if name == "learned":  # its rows lie on their grids: they are kept as they are
                assert nats == pytest.approx(model.network.loss(clips()).item(), abs=1e-3)
    assert len({total["learned", bits] for bits in (2, 3, 5)}) == 1
    best = min(total["plain", bits] for bits in (2, 3, 5))
    assert total["learned", 2] < 0.8 * best


def test_the_bits_of_weights_join_the_loss_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, tokens = [], torch.randint(0, 11, (2, 3, 2, 3))
    config = WholeFrameConfig(24, 2, 0, 2, context_steps=3, layout=LayoutConfig("none"))
    for count in (10**12, 1000):
        torch.manual_seed(0)
        module = WorldModelModule(config, AdamWConfig(), SPEC, (), coded_tokens=count)
        assert not module.shardable
        monkeypatch.setattr(module, "log", lambda *_, **__: None)
        end = SimpleNamespace(global_step=5, max_steps=5, world_size=1)
        monkeypatch.setattr(WorldModelModule, "trainer", end)
        monkeypatch.setattr(WorldModelModule, "global_step", 5)
        losses.append(module.training_step(TokenClip(tokens, torch.zeros(2, 3, 0)), 0).item())
    bits = weight_bits(module.network).item()
    assert losses[1] - losses[0] == pytest.approx(np.log(2) * bits / 1000, rel=1e-4)
    with pytest.raises(BadInput, match="coded_tokens=9: this kind predicts no next frame"):
        WorldModelModule(OccupancyConfig(dim=24), AdamWConfig(), SPEC, (), coded_tokens=9)
