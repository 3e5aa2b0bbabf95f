"""FID: the distance of known Gaussians, and features equal to another implementation's."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.nn import functional as F

import training  # noqa: F401  (first: it repairs torchvision)
from tokenizer.compare.fid import FeatureStats, frechet_distance, load_inception, origin
from tokenizer.compare.inception import Inception
from training.errors import BadInput


def stats(features):
    found = FeatureStats(features.shape[1])
    for chunk in torch.as_tensor(features).split(100):
        found.update(chunk)
    return found


def test_the_distance_of_known_gaussians():
    """Between diagonal Gaussians it is |mu_a - mu_b|^2 + sum (sigma_a - sigma_b)^2."""
    rng = np.random.default_rng(0)
    sigma_a, sigma_b = rng.uniform(0.5, 2, 6), rng.uniform(0.5, 2, 6)
    shift = rng.normal(size=6)
    exact = np.square(shift).sum() + np.square(sigma_a - sigma_b).sum()
    a, b = (rng.normal(size=(200_000, 6)) for _ in range(2))
    assert frechet_distance(stats(a * sigma_a), stats(b * sigma_b + shift)) == pytest.approx(
        exact, rel=0.02
    )


def test_the_distance_equals_the_matrix_square_root_of_scipy():
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=(500, 20)) @ rng.normal(size=(20, 20)) + rng.normal() for _ in "ab")
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    exact = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(stats(a), stats(b)) == pytest.approx(exact, rel=1e-9)
    assert frechet_distance(stats(a), stats(a)) == pytest.approx(0, abs=1e-6)


def test_fewer_vectors_than_dimensions_give_a_finite_distance():
    few = [torch.randn(5, 30, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    assert 0 < frechet_distance(*map(stats, few)) < 1000
    with pytest.raises(ValueError, match="at least 2"):
        _ = stats(few[0][:1]).covariance


@pytest.fixture(scope="module")
def peer():
    """torchvision's Inception, its weights and running statistics at random, its pooling FID's."""
    from torchvision.models import Inception3

    torch.manual_seed(0)
    network = Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.slow
def test_features_equal_torchvisions_with_the_pooling_of_fid(peer, tmp_path, monkeypatch):
    # The published file is older than the counters that torch keeps today.
    weights = {k: v for k, v in peer.state_dict().items() if "num_batches" not in k}
    torch.save(weights, tmp_path / "inception.pth")
    ours = load_inception(tmp_path / "inception.pth")
    images = torch.rand(2, 3, 40, 56) * 2 - 1
    with torch.no_grad():
        features = ours(images)
        average, maximum, seen = F.avg_pool2d, F.max_pool2d, []

        def pool(x, **args):
            last = x.shape[1] == 2048 and args.get("padding") == 1
            how = {k: v for k, v in args.items() if k != "count_include_pad"}
            return maximum(x, **how) if last else average(x, **how, count_include_pad=False)

        monkeypatch.setattr("torchvision.models.inception.F.avg_pool2d", pool)
        peer.fc.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        peer(F.interpolate(images, (299, 299), mode="bilinear"))
    assert features.shape == (2, 2048)
    assert features.std() > 1e-3
    torch.testing.assert_close(features, seen[0], rtol=1e-4, atol=1e-5)
    assert origin(tmp_path / "inception.pth").startswith("weights of sha256 ")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"gone\.pth: no such file"):
        load_inception(tmp_path / "gone.pth")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="is not FID's network"):
        load_inception(tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(BadInput, match="is no state dict but list"):
        load_inception(tmp_path / "list.pth")
    weights = Inception().state_dict()
    weights["Mixed_5b.branch1x1.conv.weight"] = torch.zeros(3, 3)
    torch.save(weights, tmp_path / "shape.pth")
    with pytest.raises(BadInput, match="size mismatch"):
        load_inception(tmp_path / "shape.pth")
