"""Memory of the loss over a large vocabulary: in chunks against all logits at once.

    python -m benchmarks head_memory

Peak of live bytes in torch's profiler over one forward and backward pass of the head alone. Twice
the tokens must not need twice the memory.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks import Row, interleaved, seconds
from worldmodel.dynamics.gpt.heads import FactoredHead, chunked_token_nll, token_nll

DIM, VOCAB, TOKENS = 64, 64_000, 1024
Work = Callable[[], None]


def rows() -> Iterator[Row]:
    weight = torch.randn(VOCAB, DIM, requires_grad=True)
    head = FactoredHead((256, 250), DIM)

    def step(nats: Callable[[Tensor, Tensor], Tensor], tokens: int) -> Work:
        x = torch.randn(tokens, DIM, requires_grad=True)
        targets = torch.randint(0, VOCAB, (tokens,))
        return lambda: nats(x, targets).mean().backward()

    def plain(x: Tensor, targets: Tensor) -> Tensor:
        return token_nll(x, weight, targets)

    def chunked(x: Tensor, targets: Tensor) -> Tensor:
        return chunked_token_nll(x, weight, targets)

    theirs = peak_bytes(step(plain, TOKENS))
    for name, nats in (("in chunks", chunked), ("256 x 250 factors", head.token_nll)):
        ours, double = (peak_bytes(step(nats, n)) for n in (TOKENS, 2 * TOKENS))
        work = {"ours": step(nats, TOKENS), "plain": step(plain, TOKENS)}
        best = interleaved({k: lambda w=w: seconds(w) for k, w in work.items()}, 2)
        yield Row(
            f"memory of the loss, {TOKENS} tokens of {VOCAB}, {name}",
            f"{ours / 1e6:,.1f} MB ({double / 1e6:,.1f} at twice the tokens; "
            f"{best['ours'] / best['plain']:.2f} of the time)",
            f"all logits at once {theirs / 1e6:,.1f} MB",
            theirs / ours,
        )


def peak_bytes(work: Work) -> int:
    """Peak of the live bytes allocated by the work."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak
