"""A table of measurements under the date, commit and hardware that it means nothing without."""

import datetime
import platform
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent.parent


def heading() -> str:
    """Date, commit, hardware and versions."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    name = commit.stdout.strip() or "no commit"
    if changed.stdout.strip():
        name += " with uncommitted changes"
    today = datetime.date.today().isoformat()
    return f"## {today}, {name}\n\n{hardware()}; torch {torch.__version__}\n"


def hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    widest = torch.backends.cpu.get_cpu_capability()
    return f"{model}, {torch.get_num_threads()} threads, {widest}"


def append(text: str, path: Path) -> None:
    """Add a section at the end of a page, which need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("\n" + text)
