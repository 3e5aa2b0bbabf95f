"""Memory and speed of training devices: from data sheets or from this machine."""

import os
from dataclasses import dataclass

import torch
from omegaconf import DictConfig

from training.errors import BadInput
from training.machine import GPUS, cpu_computes_in_bf16, num_devices
from training.watch.throughput import peak_flops

HALF, FULL = "bf16-mixed", "32-true"
# Share of the peak that training reaches where the user does not say. On two AVX2 cores our own
# recipes logged medians of 0.32 to 0.51; for GPUs it is an assumption.
GPU_SHARE, CPU_SHARE = 0.4, 0.35
# Reserve for fragmentation and for memory in use before the first tensor (on GPUs the context
# and the libraries' workspaces, on CPUs the interpreter and the libraries).
USABLE, GPU_TAKEN, CPU_TAKEN = 0.92, 1e9, 0.6e9


@dataclass(frozen=True)
class Device:
    """One training device.

    Attributes:
        memory: bytes.
        peaks: FLOP/s by precision, without emulated ones.
        share: expected share of the peak in training.
        source: origin of the figures.
    """

    name: str
    memory: float
    peaks: dict[str, float]
    share: float
    source: str

    @property
    def usable(self) -> float:
        """Bytes that tensors may take."""
        return USABLE * self.memory - (CPU_TAKEN if self.name == "cpu" else GPU_TAKEN)

    def peak(self, precision: str) -> float:
        """FLOP/s; an emulated precision counts at the full-precision peak."""
        kind = FULL if precision.startswith("32") else HALF
        return self.peaks.get(kind, self.peaks[FULL])

    @property
    def best_precision(self) -> str:
        return HALF if HALF in self.peaks else FULL


def find_device(cfg: DictConfig) -> tuple[Device, int]:
    """The device to plan for (`plan_device`, else the present one), and their number.

    Raises:
        BadInput: an unknown device, or a share of the peak outside (0, 1].
    """
    name, share = cfg.plan_device, cfg.plan_mfu
    if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
        raise BadInput(f"plan_mfu={share}: give a share of the peak between 0 and 1, such as 0.4")
    name = str(name).lower() if name is not None else None
    if name is not None and name not in (*GPUS, "cpu"):
        raise BadInput(
            f"plan_device={name}: unknown; choose one of {', '.join((*GPUS, 'cpu'))}, or leave "
            "it out for the device at hand"
        )
    if name in GPUS:
        # Not this machine: "auto" devices are not counted here.
        auto = cfg.trainer.devices in ("auto", -1)
        count = int(cfg.trainer.num_nodes) if auto else num_devices(cfg.trainer)
        memory, half, full = GPUS[name]
        peaks = {HALF: half, FULL: full}
        return Device(name, memory, peaks, share or GPU_SHARE, "data sheet"), count
    count = num_devices(cfg.trainer)
    here = torch.cuda.is_available() and cfg.trainer.accelerator != "cpu"
    if name == "cpu" or not here:
        return _cpu(share or CPU_SHARE, count), count
    return _gpu_at_hand(share or GPU_SHARE), count


def _cpu(share: float, count: int) -> Device:
    """This machine, divided among its processes."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / count
    peak = peak_flops("cpu") / count
    peaks = {FULL: peak}
    if cpu_computes_in_bf16():
        peaks[HALF] = peak
    return Device("cpu", memory, peaks, share, "measured in fp32")


def _gpu_at_hand(share: float) -> Device:
    facts = torch.cuda.get_device_properties(0)
    peak = peak_flops("cuda:0")
    peaks = {FULL: peak / 2}
    if torch.cuda.is_bf16_supported(including_emulation=False):
        peaks[HALF] = peak
    return Device(facts.name, facts.total_memory, peaks, share, "at hand")
