"""The status of a run: `status.json` in its folder.

    state       running | finished | stopped (by a signal, saved, to be continued) | failed
    reason      why it stopped or failed, in one line
    exit_code   0 | 2 bad input | 75 stopped, start it again | 1 anything else; null while running
    step, max_steps, metrics (the last validation's), attempts, alive_s (of all attempts), job
    findings    names of the doctor's findings (tokenizer.doctor.findings), if any

A run that is killed outright stays "running"; its `updated` then grows old.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from training.disk.leftovers import written_whole
from training.errors import BadInput

FILE = "status.json"
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again later


def read_status(folder: Path) -> dict[str, Any]:
    """The status of a run folder; empty where it has none yet.

    Raises:
        BadInput: the file is damaged; the run's next start writes it anew.
    """
    file = Path(folder) / FILE
    if not file.exists():
        return {}
    try:  # metrics of a run that diverged are NaN
        return {**json.loads(file.read_bytes())}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"{file}: damaged ({error}); a start of the run writes it anew") from error


def write_status(folder: Path, **changes: Any) -> dict[str, Any]:
    """Change some entries; the file is replaced atomically.

    Where it cannot be written, as on a full disk, a warning is printed and the run continues.
    """
    folder = Path(folder)
    try:
        before = read_status(folder)
    except BadInput as error:
        print(f"warning: {error}")
        before = {}
    status = {**before, **changes, "updated": round(time.time(), 3)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not synced, to avoid a disk wait per row; the next start replaces a damaged file.
        with written_whole(folder / FILE) as partial:
            partial.write_text(json.dumps(status, indent=1) + "\n")
    except OSError as error:
        print(f"warning: {folder / FILE}: not written ({error.strerror})")
    return status


def slurm_job() -> str | None:
    """The job's id for `scontrol` (ARRAY_TASK for arrays); None outside Slurm."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")
