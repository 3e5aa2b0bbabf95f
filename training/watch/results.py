"""Appends tables with date, commit and hardware to a results file."""

import datetime
import subprocess
from pathlib import Path

import torch

from training.machine import hardware

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


def append(text: str, path: Path) -> None:
    """Append a section to a page, which is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("\n" + text)
