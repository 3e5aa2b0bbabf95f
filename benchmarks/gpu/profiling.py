"""Where the time of a GPU goes: the kernels of some work, by kind and by name."""

from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import seconds

# The first kind of which a word is in the kernel's name. Names of cuBLAS, cuDNN, CUTLASS, Triton.
KINDS = {
    "attention": ("flash", "fmha", "sdpa", "attention", "softmax_warp"),
    "convolution": ("conv", "wgrad", "dgrad", "implicit"),
    "matmul": ("gemm", "gemv", "nvjet", "cutlass", "splitk", "addmm", "aten::mm", "aten::bmm"),
    "optimizer": ("multi_tensor", "adam", "foreach", "lpnorm"),
    "loss": ("softmax", "nll_loss", "cross_entropy"),
    "embedding": ("embedding", "index", "scatter", "gather", "radix", "sort"),
    "fused": ("triton",),
    "copy": ("memcpy", "copy", "memset", "cat"),
}


def profiled(work: Callable[[], object], title: str) -> str:
    """A note: shares of the time by kind of kernel, and the kernels that take the most."""
    on_gpu = torch.cuda.is_available()
    work()
    taken = seconds(work)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as profiler:
        seconds(work)
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    times: dict[str, tuple[float, int]] = {}
    for event in profiler.key_averages():
        if event.device_type == wanted:
            own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            before = times.get(event.key, (0.0, 0))
            times[event.key] = (before[0] + own / 1e6, before[1] + event.count)
    busy = sum(time for time, _ in times.values())
    kinds: dict[str, float] = {}
    for name, (time, _) in times.items():
        kinds[kind_of(name)] = kinds.get(kind_of(name), 0.0) + time
    lines = [
        f"{title}: {taken * 1e3:.2f} ms, kernels {busy * 1e3:.2f} ms ({busy / taken:.0%})",
        ", ".join(
            f"{kind} {time / busy:.1%}"
            for kind, time in sorted(kinds.items(), key=lambda item: -item[1])
        ),
    ]
    top = sorted(times.items(), key=lambda item: -item[1][0])[:16]
    lines += [
        f"  {time / busy:6.1%} {time * 1e3:9.3f} ms {n:5d} x {name[:90]}" for name, (time, n) in top
    ]
    return "```text\n" + "\n".join(lines) + "\n```"


def kind_of(kernel: str) -> str:
    name = kernel.lower()
    return next((kind for kind, words in KINDS.items() if any(w in name for w in words)), "other")
