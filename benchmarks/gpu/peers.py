"""A training step against `transformers`' GPT-2 of the same shape, both eager and compiled.

Ours is compiled block by block, as `train.py` does it, theirs as a whole. Both take the same
optimizer, clipping and batch.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from benchmarks import Row, interleaved
from benchmarks.gpu.profiling import profiled
from benchmarks.gpu.training_step import (
    GRID,
    SMALL,
    TOY,
    VOCAB,
    TrainingStep,
    compile_blocks,
    make_model,
)
from benchmarks.training.train_step import AS_GPT2, peer_of

GOALS = {"eager": 1.2, "compiled": 1.0}


def rows(part: str, toy: bool) -> Iterator[Row | str]:
    size, device = (TOY, "cpu") if toy else (replace(SMALL, batch=16, seconds=1.0), "cuda")
    ours = make_model(size, device, **AS_GPT2)
    peer = peer_of(ours).to(device).train()
    tokens = torch.randint(0, VOCAB, (size.batch, size.steps, *GRID[1:]), device=device)
    ids = ours.layout.sequence_ids(tokens)
    for way, goal in GOALS.items():
        if way == "compiled":
            compile_blocks(ours)
            peer.compile(dynamic=False)
        steps = {
            "ours": TrainingStep(ours, size, size.batch, lambda: ours.loss(tokens)),
            "theirs": TrainingStep(peer, size, size.batch, lambda: peer(ids, labels=ids).loss),
        }
        best = interleaved({name: step.seconds_each for name, step in steps.items()}, 3)
        rate = {name: tokens.numel() / taken for name, taken in best.items()}
        yield Row(
            f"training step, {size.layers} x {size.dim}, {size.batch} x {ids.shape[1]}, "
            f"bf16 autocast, {way}",
            f"{rate['ours']:,.0f} real tokens/s",
            f"transformers GPT2LMHeadModel {rate['theirs']:,.0f}",
            best["theirs"] / best["ours"],
            goal,
        )
        if way == "compiled":
            for name, step in steps.items():
                yield profiled(step, f"{name}, compiled")
