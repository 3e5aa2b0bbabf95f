"""FID: the Frechet distance between two sets of images, as Gaussians of their features.

Source: Heusel et al. 2017 (arXiv:1706.08500), eq. 6. rFID is the FID between frames and their
reconstructions.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from tokenizer.compare.inception import Inception
from training.disk.hashing import file_sha256
from training.errors import BadInput
from training.foreign.weights import read_file

PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"
PUBLISHED_SHA256 = "6726825d"  # its first digits, as in torch hub's file names
NOT_FEATURES = ("fc.", "AuxLogits.")


class FeatureStats:
    """Running mean and covariance of feature vectors, in float64.

    Attributes:
        count: number of vectors seen.
    """

    def __init__(self, dim: int, device: str | torch.device = "cpu") -> None:
        self.count = 0
        self.sum: Float[Tensor, " d"] = torch.zeros(dim, dtype=torch.float64, device=device)
        self.products = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    def update(self, features: Float[Tensor, "n d"]) -> None:
        features = features.to(self.sum)
        self.count += len(features)
        self.sum += features.sum(0)
        self.products += features.T @ features

    @property
    def mean(self) -> Float[Tensor, " d"]:
        return self.sum / self.count

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Unbiased; ValueError for fewer than two vectors."""
        if self.count < 2:
            raise ValueError(f"{self.count} feature vectors have no covariance; give at least 2")
        outer = torch.outer(self.sum, self.sum) / self.count
        return (self.products - outer) / (self.count - 1)


def frechet_distance(a: FeatureStats, b: FeatureStats) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2); 0 for equal sets.

    With fewer vectors than dimensions the value is too high: compare only equal counts.
    """
    root = _square_root(a.covariance)
    # S_a S_b and its symmetric sibling have the same eigenvalues.
    product = torch.linalg.eigvalsh(root @ b.covariance @ root)
    trace = torch.trace(a.covariance) + torch.trace(b.covariance)
    distance = (a.mean - b.mean).square().sum() + trace - 2 * product.clamp(min=0).sqrt().sum()
    return max(0.0, float(distance))


def _square_root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Square root of a positive semidefinite matrix; negative eigenvalues (rounding) count as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def load_inception(file: Path) -> Inception:
    """FID's network, in eval mode, with the weights of `file` (`PUBLISHED`, or safetensors).

    Raises:
        BadInput: the file cannot be read, or its tensors are not the network's (a classifier's
            tensors are ignored).
    """
    hint = f"give {PUBLISHED} as the pytorch-fid project publishes it"
    tensors = read_file(file, "inception", hint)
    kept = {k: v for k, v in tensors.items() if not str(k).startswith(NOT_FEATURES)}
    with torch.device("meta"):
        network = Inception()
    try:
        network.load_state_dict(kept, assign=True)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()[:200]
        raise BadInput(f"inception={file}: is not FID's network ({reason}); {hint}") from error
    return network.eval().requires_grad_(False)


def origin(file: Path) -> str:
    """Name of the weights, for readers of an rFID: only the published weights are comparable."""
    digest = file_sha256(file)
    published = digest.startswith(PUBLISHED_SHA256)
    return "FID's published Inception-v3" if published else f"weights of sha256 {digest[:12]}"
