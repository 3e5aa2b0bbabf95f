"""What this GPU does at most: memory, matrix products, and the kernels of attention."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import Row, seconds
from training.watch.throughput import peak_flops

# batch, heads, positions, channels: those of the training steps, and with even lengths.
SHAPES = (
    (32, 12, 2063, 64),
    (32, 12, 2048, 64),
    (32, 6, 2063, 128),
    (8, 16, 4643, 64),
    (6, 14, 4643, 128),
)
TOY_SHAPES = ((1, 2, 32, 16),)
KERNELS = ("FLASH_ATTENTION", "CUDNN_ATTENTION")
REPEATS = 5


def rows(part: str, toy: bool) -> Iterator[Row | str]:
    device = "cpu" if toy else "cuda"
    count = 2**12 if toy else 2**31
    source = torch.rand(count // 4, device=device)
    copied = torch.empty_like(source)
    rate = 2 * source.nbytes / _best(lambda: copied.copy_(source))
    del source, copied
    yield Row("copy in memory", f"{rate / 1e12:.3g} TB/s", "4.8 by the data sheet", rate / 4.8e12)
    size, peak = (64 if toy else 8192), peak_flops(device)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * size**3 / _best(lambda: a @ b)
    theirs = f"peak {peak / 1e12:.3g}"
    yield Row("a matrix product in bf16", f"{rate / 1e12:.3g} TFLOP/s", theirs, rate / peak)
    for shape in TOY_SHAPES if toy else SHAPES:
        yield from _attention(shape, device, peak)


def _attention(shape: tuple[int, int, int, int], device: str, peak: float) -> Iterator[Row]:
    """Causal attention, forward and backward, by every kernel; FLOPs of the unmasked half."""
    batch, heads, positions, channels = shape
    packed = torch.randn(batch, positions, 3 * heads, channels, device=device)
    query, key, value = (
        part.transpose(1, 2).detach().requires_grad_()
        for part in packed.bfloat16().split(heads, dim=2)
    )
    flops = 0.5 * 14 * batch * heads * positions**2 * channels
    for kernel in KERNELS:
        try:
            with sdpa_kernel(getattr(SDPBackend, kernel)):
                taken = _best(lambda: _step(query, key, value))
        except RuntimeError as error:
            yield Row(f"attention {shape}, {kernel}", f"no: {error}"[:80], "", float("nan"))
            continue
        name = f"attention {shape} forward and backward, {kernel}"
        rate = flops / taken
        ours = f"{taken * 1e3:.2f} ms, {rate / 1e12:.3g} TFLOP/s"
        yield Row(name, ours, f"peak {peak / 1e12:.3g}", rate / peak)


def _step(query: Tensor, key: Tensor, value: Tensor) -> None:
    out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.autograd.grad(out, (query, key, value), out)


def _best(work: object) -> float:
    assert callable(work)
    work()

    def several() -> None:
        for _ in range(REPEATS):
            work()

    return min(seconds(several) for _ in range(3)) / REPEATS
