"""What a run folder says about itself to whoever did not watch: `status.json`.

    state       running | finished | stopped (by a signal, saved, to be continued) | failed
    reason      why it stopped or failed, in one line
    exit_code   0 | 2 bad input | 75 stopped, start it again | 1 anything else; null while running
    step, max_steps, metrics (the last validation's), attempts, alive_s (of all attempts), job
    findings    names of what the doctor found (tokenizer.findings), where it found something

A run that is killed outright stays "running"; its `updated` then grows old.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

FILE = "status.json"
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again later


def read_status(folder: Path) -> dict[str, Any]:
    """The status of a run folder; empty where it has none yet."""
    file = Path(folder) / FILE
    return json.loads(file.read_text()) if file.exists() else {}


def write_status(folder: Path, **changes: Any) -> dict[str, Any]:
    """Change some entries; the file is replaced in one step, so readers never see half of it."""
    status = {**read_status(folder), **changes, "updated": round(time.time(), 3)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{FILE}.{os.getpid()}"
    partial.write_text(json.dumps(status, indent=1) + "\n")
    partial.replace(folder / FILE)
    return status


def slurm_job() -> str | None:
    """The id that `scontrol` knows this job by (ARRAY_TASK for arrays); None outside Slurm."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")
