"""What a run stands on: the code's revision, the hardware, how many processes there are."""

import os
import platform
import subprocess
from pathlib import Path

import torch
from omegaconf import DictConfig


def git_revision() -> str:
    """Commit of the code, with '+dirty' where the tree differs; '' outside a checkout."""
    here = Path(__file__).parent
    try:
        git = ["git", "-C", str(here)]
        sha = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        diff = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return sha.stdout.strip() + ("+dirty" if diff.stdout.strip() else "")


def hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"CPU, {torch.get_num_threads()} threads ({platform.machine()})"


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
