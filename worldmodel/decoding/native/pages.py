"""Large pages for what every token reads: so a CPU looks up fewer addresses."""

import ctypes
import mmap
import sys

from torch import Tensor

ADVICE = getattr(mmap, "MADV_HUGEPAGE", None)  # Linux alone has it


def in_large_pages(fresh: Tensor) -> Tensor:
    """The same tensor, in large pages where the system gives them; before it is written."""
    size = fresh.untyped_storage().nbytes()
    start = -(-fresh.untyped_storage().data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = fresh.untyped_storage().data_ptr() + size - start
    if ADVICE is not None and sys.platform == "linux" and length > 0:
        # An advice: where it is refused, the pages are small, and all else is the same.
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(start), ctypes.c_size_t(length // mmap.PAGESIZE * mmap.PAGESIZE), ADVICE
        )
    return fresh
