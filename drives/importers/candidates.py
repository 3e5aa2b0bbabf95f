"""Reads what a format found; what cannot be used ends it, or is left out and told."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from drives.importers.recording import Candidate, Recording
from training.errors import BadInput


def read_candidates(
    candidates: Sequence[Candidate], on_bad: str = "stop", num_workers: int = 0
) -> tuple[list[Recording], list[str]]:
    """Read what a format found.

    Args:
        on_bad: "stop": the first candidate that cannot be used ends it; "skip": it is left out.

    Returns:
        The recordings, and why each of the others was left out.

    Raises:
        BadInput: a candidate cannot be used, or with "skip" none can.
    """
    recordings: list[Recording] = []
    left_out: list[str] = []
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        futures = [pool.submit(candidate.read) for candidate in candidates]
        try:
            for future in tqdm(futures, "reading", unit="recording", leave=False):
                try:
                    recordings += future.result()
                except BadInput as error:
                    if on_bad == "skip":
                        left_out.append(str(error))
                    elif len(candidates) == 1 or "--on-bad" in str(error):
                        raise
                    else:
                        raise BadInput(f"{error}; --on-bad=skip leaves it out") from error
        finally:
            pool.shutdown(cancel_futures=True)
    if not recordings and left_out:
        raise BadInput(f"none of {len(left_out)} recordings can be used; the first: {left_out[0]}")
    return recordings, left_out
