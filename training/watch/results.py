"""Appends tables with date, commit and hardware to a results file."""

import datetime
import subprocess
from pathlib import Path

import torch

from training.machine import hardware

ROOT = Path(__file__).parent.parent.parent


def heading() -> str:
    """Date, commit, hardware and versions."""
    name = _git("rev-parse", "--short", "HEAD") or "no commit"
    if _git("status", "--porcelain"):
        name += " with uncommitted changes"
    today = datetime.date.today().isoformat()
    return f"## {today}, {name}\n\n{hardware()}; torch {torch.__version__}\n"


def _git(*words: str) -> str:
    """What git says of this tree; nothing where there is no git, or no history."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def append(text: str, path: Path) -> None:
    """Append a section to a page, which is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("\n" + text)
