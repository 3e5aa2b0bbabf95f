"""What a run stands on: the hardware, and how many processes there are."""

import os
import platform

import torch
from omegaconf import DictConfig

from training.errors import BadInput


def hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"CPU, {torch.get_num_threads()} threads ({platform.machine()})"


def compute_device(name: str | None) -> str:
    """The device called so; a GPU if there is one, where none is named.

    Raises:
        BadInput: there is none of this name, or it cannot be used.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"device={name}: cannot be used ({reason}); give cpu or cuda") from error
    return name


def computes_in_bf16() -> bool:
    """Whether bf16 is faster than fp32 here; CPUs without it emulate it slowly."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def num_devices(trainer: DictConfig) -> int:
    """Processes that train, on all nodes, as the trainer's settings mean them."""
    cpu = trainer.accelerator == "cpu" or not torch.cuda.is_available()
    devices = trainer.devices
    if devices == "auto" or devices == -1:
        devices = 1 if cpu else torch.cuda.device_count()
    return int(devices if isinstance(devices, int) else len(devices)) * int(trainer.num_nodes)


def launched_rank() -> int:
    """Rank of this process as its launcher set it; 0 where there is just one."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name):
            return int(os.environ[name])
    return 0


def launched_together() -> bool:
    """Whether torchrun or Slurm started several of these processes at once."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1) > 1


def is_helper_of_rank_zero() -> bool:
    """Whether Lightning started this process itself: it then ends rank 0 if we exit non-zero."""
    launchers = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID")
    return launched_rank() > 0 and not any(name in os.environ for name in launchers)
