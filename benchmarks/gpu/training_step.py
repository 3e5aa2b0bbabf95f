"""Model FLOPs utilisation of a training step, with the profile of the rest.

A step is that of `train.py`: bf16-mixed, blocks compiled one by one, gradients clipped by the
guard, fused AdamW; without Lightning and logs. FLOPs are 6 N + 12 L d T per position, N without
lookups (PaLM, arXiv 2204.02311, appendix B), against the data sheet's peak of dense bf16; the row
also says what counting only the unmasked half of the attention gives.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from benchmarks import Row, seconds
from benchmarks.gpu.profiling import profiled
from drives.tokens.store import TokenSpec
from training.config import AdamWConfig
from training.optimization.optimizers import build_optimizer
from training.watch.clock import now
from training.watch.gradients import FiniteGuard
from training.watch.throughput import peak_flops
from worldmodel.dynamics.gpt.model import GPT, GPTConfig

GRID, VOCAB = (1, 8, 16), 1024
CUDNN = int(SDPBackend.CUDNN_ATTENTION)


@dataclass(frozen=True)
class Size:
    """Shape of one row; `steps` frames of 129 positions, the last of which predicts nothing.

    Attributes:
        variant: what differs from a step of `train.py`: "", "bf16 stream" (hidden states between
            blocks in bf16) or "cudnn attention" (its kernels before those of flash attention).
        seconds: time to measure for.
    """

    dim: int
    layers: int
    heads: int
    steps: int
    batch: int
    goal: float
    variant: str = ""
    seconds: float = 2.5


SMALL = Size(768, 12, 12, 16, 32, 0.40)
SIZES = {
    "mfu_124M": SMALL,
    "mfu_310M": Size(1024, 24, 16, 36, 8, 0.42),
    "mfu_700M": Size(1536, 24, 12, 36, 6, 0.47),
    "mfu_1B": Size(1792, 24, 14, 36, 6, 0.50),
    "mfu_124M_wide_heads": replace(SMALL, heads=6),
    "mfu_124M_bf16_stream": replace(SMALL, variant="bf16 stream"),
    "mfu_124M_cudnn": replace(SMALL, variant="cudnn attention"),
}
TOY = Size(64, 2, 2, 2, 2, 0.40, seconds=0.0)


def rows(part: str, toy: bool) -> Iterator[Row | str]:
    size = replace(TOY, variant=SIZES[part].variant) if toy else SIZES[part]
    device = "cpu" if toy else "cuda"
    if size.variant == "cudnn attention":
        order = torch._C._get_sdp_priority_order()
        torch._C._set_sdp_priority_order(sorted(order, key=lambda kernel: kernel != CUDNN))
    model = make_model(size, device)
    if size.variant == "bf16 stream":
        _lower_stream(model)
    compile_blocks(model)
    began = now(device)
    step, batch = fitting(model, size)
    compiling = now(device) - began
    each = step.seconds_each()
    peak = peak_flops(device)
    full, causal = (model.flops(batch, size.steps, c) / each / peak for c in (False, True))
    positions = batch * model.layout.sequence_length(size.steps)
    variant = f", {size.variant}" if size.variant else ""
    memory = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
    yield Row(
        f"training step of {model.num_parameters() / 1e6:.0f} M ({size.layers} x {size.dim}, "
        f"{size.heads} heads, {positions // batch} positions, batch {batch}), bf16-mixed, "
        f"blocks compiled{variant}; first step {compiling:.0f} s",
        f"MFU {full:.1%} ({causal:.1%} causal), {positions / each:,.0f} positions/s, "
        f"{each * 1e3:.0f} ms, {memory:.1f} GB",
        f"{peak / 1e12:.3g} TFLOP/s, 6 N + 12 L d T",
        full,
        size.goal,
    )
    yield profiled(step, f"a step of {part}")


def make_model(size: Size, device: str, **changes: Any) -> GPT:
    spec = TokenSpec(GRID, VOCAB, 20.0, 1, (128, 256), "random")
    config = GPTConfig(
        dim=size.dim,
        num_layers=size.layers,
        num_heads=size.heads,
        context_steps=size.steps,
        **changes,
    )
    with torch.device(device):
        return GPT(config, spec, 0).train()


def compile_blocks(model: GPT) -> None:
    """As `TrainedModule.speed_up`."""
    for block in model.blocks:
        block.compile(dynamic=False)


def _lower_stream(model: GPT) -> None:
    """Let the blocks hand on bf16 hidden states."""
    embed = model.embed_clip
    model.embed_clip = lambda *args: embed(*args).bfloat16()  # type: ignore[method-assign]


class TrainingStep:
    """Forward, backward, clipping and AdamW on one random batch."""

    def __init__(
        self, model: Any, size: Size, batch: int, loss: Callable[[], Tensor] | None = None
    ) -> None:
        self.model, self.least_s, self.count = model, size.seconds, 0
        self.device = next(model.parameters()).device.type
        self.config = AdamWConfig(lr=1e-4)
        self.optimizer, _ = build_optimizer(model, self.config, 1000)
        self.guard = FiniteGuard(max_skipped=1000)
        tokens = torch.randint(0, VOCAB, (batch, size.steps, *GRID[1:]), device=self.device)
        self.loss = loss or (lambda: model.loss(tokens))
        self()

    def __call__(self) -> None:
        with torch.autocast(self.device, torch.bfloat16):
            loss = self.loss()
        self.guard.see(loss)
        loss.backward()
        self.guard.clip(self.model.parameters(), self.optimizer, self.config.clip_norm, self.count)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.guard.poll()
        self.count += 1

    def seconds_each(self) -> float:
        """Seconds of a step, over many that the host does not wait for."""
        self()
        once = seconds(self)
        steps = max(3, int(self.least_s / once))
        return seconds(lambda: [self() for _ in range(steps)]) / steps


def fitting(model: GPT, size: Size) -> tuple[TrainingStep, int]:
    """A step with the largest batch that fits, halved from that of `size` on."""
    batch = size.batch
    while True:
        try:
            return TrainingStep(model, size, batch), batch
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        model.zero_grad()
        torch.cuda.empty_cache()
        batch //= 2
