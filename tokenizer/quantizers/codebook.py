"""Operations on a codebook: nearest code, k-means, and sums over processes."""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

# Entries of the largest table of latents x codes: 256 MiB of float32.
CHUNK = 2**26


def nearest(
    z: Float[Tensor, "n d"], table: Float[Tensor, "v d"], dot: bool = False
) -> Int[Tensor, "n"]:
    """Index of the code with the smallest squared distance; in chunks, so memory is bounded.

    Args:
        dot: choose the largest dot product instead, which favours long codes.
    """
    half = 0 if dot else table.square().sum(-1) / 2
    rows = z.split(max(1, CHUNK // len(table)))
    return torch.cat([(part @ table.T - half).argmax(-1) for part in rows])


def sums_by_code(
    z: Float[Tensor, "n d"], indices: Int[Tensor, "n"], num_codes: int
) -> tuple[Float[Tensor, "v d"], Float[Tensor, "v"]]:
    """Sum and number of the latents of each code.

    Uses products with one-hot rows: index_add on a GPU has no fixed order, so a resumed run would
    differ.
    """
    size, codes = max(1, CHUNK // num_codes), torch.arange(num_codes, device=z.device)
    sums, counts = z.new_zeros(num_codes, z.shape[1]), z.new_zeros(num_codes)
    for part, chosen in zip(z.split(size), indices.split(size), strict=True):
        one_hot = (codes[:, None] == chosen).to(z.dtype)
        sums, counts = sums + one_hot @ part, counts + one_hot.sum(1)
    return sums, counts


def kmeans(
    samples: Float[Tensor, "n d"], means: Float[Tensor, "v d"], steps: int, cosine: bool
) -> tuple[Float[Tensor, "v d"], Float[Tensor, "v"]]:
    """Lloyd's iterations from given means; a mean without samples stays where it is.

    Args:
        cosine: samples have length 1, and means are normalised to it.

    Returns:
        The means, and the number of samples of each in the last iteration.
    """
    counts = means.new_zeros(len(means))
    for _ in range(steps):
        sums, counts = sums_by_code(samples, nearest(samples, means), len(means))
        moved = sums / counts.clamp(min=1)[:, None]
        means = torch.where(counts[:, None] > 0, normalized(moved) if cosine else moved, means)
    return means, counts


def choose(samples: Float[Tensor, "n d"], number: int) -> Float[Tensor, "v d"]:
    """Draw samples with torch's generator; their counts differ by at most one."""
    rounds = -(-number // len(samples))
    order = [torch.randperm(len(samples), device=samples.device) for _ in range(rounds)]
    return samples[torch.cat(order)[:number]]


def normalized(z: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    return F.normalize(z, dim=-1)


def several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def summed(*tensors: Tensor) -> None:
    """Sum over all processes, in place."""
    if several_processes():
        for tensor in tensors:
            dist.all_reduce(tensor)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean over all processes, with the gradient of this process's value.

    DDP averages gradients over processes, so the result equals the gradient of the mean.
    """
    if not several_processes():
        return value
    whole = value.detach().clone()
    dist.all_reduce(whole)
    return value + (whole / dist.get_world_size() - value).detach()


def gathered(z: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """The latents of all processes; each has equally many."""
    if not several_processes():
        return z
    parts = [torch.empty_like(z) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, z.contiguous())
    return torch.cat(parts)


def from_rank_zero(tensor: Tensor) -> Tensor:
    """The tensor of rank 0: random generators differ between ranks."""
    if several_processes():
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=0)
    return tensor
