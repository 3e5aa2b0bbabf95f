"""Work on a table of codes: who is nearest, k-means, and what several processes agree on."""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

# Entries of the largest table of latents x codes that is made at once: 256 MiB of float32.
CHUNK = 2**26


def nearest(
    z: Float[Tensor, "n d"], table: Float[Tensor, "v d"], dot: bool = False
) -> Int[Tensor, "n"]:
    """Index of the code with the smallest squared distance; in chunks, so memory is bounded.

    Args:
        dot: the code with the largest dot product instead, in which long codes win.
    """
    half = 0 if dot else table.square().sum(-1) / 2
    rows = z.split(max(1, CHUNK // len(table)))
    return torch.cat([(part @ table.T - half).argmax(-1) for part in rows])


def sums_by_code(
    z: Float[Tensor, "n d"], indices: Int[Tensor, "n"], num_codes: int
) -> tuple[Float[Tensor, "v d"], Float[Tensor, "v"]]:
    """Sum and number of the latents of each code.

    As products with one-hot rows: index_add on a GPU adds in no fixed order, and a resumed run
    would not be the one left alone.
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
    """Lloyd's iterations from given means; a mean that nobody chose stays where it is.

    Args:
        cosine: samples and means have length 1, and means are put back there.

    Returns:
        The means, and how many samples chose each in the last iteration.
    """
    counts = means.new_zeros(len(means))
    for _ in range(steps):
        sums, counts = sums_by_code(samples, nearest(samples, means), len(means))
        moved = sums / counts.clamp(min=1)[:, None]
        means = torch.where(counts[:, None] > 0, normalized(moved) if cosine else moved, means)
    return means, counts


def choose(samples: Float[Tensor, "n d"], number: int) -> Float[Tensor, "v d"]:
    """Samples drawn by torch's generator, each at most once more often than another."""
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
    """The mean over all processes, with the gradient of this one's share.

    DDP averages the gradients of the processes, so what stays here is as if each had seen the
    mean as its own.
    """
    if not several_processes():
        return value
    whole = value.detach().clone()
    dist.all_reduce(whole)
    return value + (whole / dist.get_world_size() - value).detach()


def gathered(z: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """The latents of all processes, which have equally many each."""
    if not several_processes():
        return z
    parts = [torch.empty_like(z) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, z.contiguous())
    return torch.cat(parts)


def from_rank_zero(tensor: Tensor) -> Tensor:
    """What rank 0 drew: the generators of the ranks differ on purpose."""
    if several_processes():
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=0)
    return tensor
