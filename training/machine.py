"""The hardware and the number of processes of a run."""

import os
import platform
from pathlib import Path

import torch
from omegaconf import DictConfig

from training.errors import BadInput, first_line
from training.watch.clock import now

# name: bytes, dense FLOP/s in bf16 and in TF32 (what 32-true multiplies in), from the vendor's
# data sheets. The GeForce cards count bf16 with sums in fp32, as training does.
GPUS = {
    "h200": (141e9, 989e12, 494e12),
    "h100": (80e9, 989e12, 494e12),
    "a100-80": (80e9, 312e12, 156e12),
    "a100-40": (40e9, 312e12, 156e12),
    "4090": (24e9, 165e12, 82e12),
    "3090": (24e9, 71e12, 35e12),
}


def hardware() -> str:
    """The GPUs, or else the CPU with its threads and its widest instructions."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    widest = torch.backends.cpu.get_cpu_capability()
    return f"CPU {model}, {torch.get_num_threads()} threads, {widest}"


def compute_device(name: str | None) -> str:
    """The named device; for None a GPU if there is one, else the CPU.

    Raises:
        BadInput: there is no such device, or it cannot be used.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise BadInput(f"device={name}: cannot be used ({reason}); give cpu or cuda") from error
    return name


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second that a sum over a large array reads; the best of several."""
    array, best = torch.ones(100_000_000, device=device), float("inf")
    for _ in range(10):
        began = now(device)
        array.sum()
        best = min(best, now(device) - began)
    return array.numel() * 4 / best


def computes_in_bf16() -> bool:
    """Whether bf16 is faster than fp32 here."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_computes_in_bf16()


def cpu_computes_in_bf16() -> bool:
    """Whether bf16 is faster than fp32 on this CPU: where it has tiles for it (AMX).

    AVX-512's instructions for bf16 alone multiply at 0.6 of the rate of fp32 (81 against 134
    GFLOP/s on one core of an Intel Xeon), and other CPUs emulate it.
    """
    return bool(torch.cpu._is_amx_tile_supported())


def num_devices(trainer: DictConfig) -> int:
    """Number of training processes on all nodes, from the trainer's settings."""
    cpu = trainer.accelerator == "cpu" or not torch.cuda.is_available()
    devices = trainer.devices
    if devices == "auto" or devices == -1:
        devices = 1 if cpu else torch.cuda.device_count()
    return int(devices if isinstance(devices, int) else len(devices)) * int(trainer.num_nodes)


def launched_rank() -> int:
    """Rank of this process from its launcher; 0 for a single process."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name):
            return int(os.environ[name])
    return 0


def launched_together() -> bool:
    """Whether torchrun or Slurm started several of these processes at once."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) > 1


def is_helper_of_rank_zero() -> bool:
    """Whether Lightning started this process; a non-zero exit then also ends rank 0."""
    launchers = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID")
    return launched_rank() > 0 and not any(name in os.environ for name in launchers)
