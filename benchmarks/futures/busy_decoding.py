"""One-token decoding while another process spins on a core: what is left of the free speed.

The shape and the peer are those of `benchmarks.futures.decoding`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from statistics import median

import torch

from benchmarks import Row
from benchmarks.futures.decoding import commavq, make_decoders, one_token, rounds
from training.watch.free_threads import FreeThreads

FREE_ROUNDS, BUSY_ROUNDS, TOKENS, WARM = 5, 5, 4, 3
WAYS = (("native", "all"), ("native", "free"), ("torch", "free"))
SPIN = "import os; os.sched_setaffinity(0, {%d})\nwhile True: pass"


def rows() -> Iterator[Row]:
    decoders, peer, threads = make_decoders(), commavq(), torch.get_num_threads()
    ours = {
        f"{dtype} {kernel}": (decoder, one_token(decoder, kernel == "native", TOKENS))
        for dtype, decoder in decoders.items()
        for kernel in ("native", "torch")
    }
    free = rounds({name: measure for name, (_, measure) in ours.items()}, FREE_ROUNDS)
    core = max(os.sched_getaffinity(0))
    other = subprocess.Popen([sys.executable, "-c", SPIN % core])
    try:
        theirs = [] if peer is None else rounds({"peer": one_token(peer, tokens=2)}, 2)["peer"]
        rival = f"; commaVQ now {median(theirs) * 1e3:.0f} ms" if theirs else ""
        for dtype, (kernel, way) in product(decoders, WAYS):
            name = f"{dtype} {kernel}"
            decoder, measure = ours[name]
            decoder.threads = FreeThreads(threads) if way == "free" else None
            for _ in range(WARM):  # it notices the load
                measure()
            taken, own = rounds({"": measure}, BUSY_ROUNDS)[""], median(free[name])
            decoder.threads = None
            torch.set_num_threads(threads)
            shares = sorted(own / each for each in taken)
            yield Row(
                f"a token, {name}, a core taken, threads={way}",
                f"{median(taken) * 1e3:.1f} ms ({shares[0]:.2f} to {shares[-1]:.2f})",
                f"nothing else running {own * 1e3:.1f} ms{rival}",
                median(shares),
                0.4,
            )
    finally:
        other.kill()
        other.wait()
