"""Weights of a GPT for decoding, where every token reads all of them once."""

import torch
from torch import Tensor, nn

from training.errors import BadInput
from training.ranges import one_of
from worldmodel.decoding.quantized import Int8Linear, quantize, why_not_int8
from worldmodel.dynamics.actions.layers import ActionInBlock
from worldmodel.dynamics.gpt.model import GPT

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


def for_decoding(model: GPT, dtype: torch.dtype | str | None = None) -> GPT:
    """A frozen copy of the model with its linear layers stored for decoding.

    Bytes are time. `dtype` applies only to linear layers, not to norms, embeddings and the
    residual stream; int8 also applies to the KV cache. Without `dtype` nothing is rounded. On a
    CPU, float32 weights are stored column-major: its matrix-vector product reads them faster.

    Raises:
        BadInput: an unknown dtype, or int8 where it does not run.
    """
    if isinstance(dtype, str):
        one_of(DTYPES, dtype=dtype)
        dtype = DTYPES[dtype]
    model = model.for_decoding()
    if dtype == torch.int8:
        if reason := why_not_int8(model.embed.weight.device):
            raise BadInput(f"dtype=int8: {reason}")
        quantize([model, *model.blocks.modules()])
        return model
    for module in model.blocks.modules():
        if not isinstance(module, nn.Linear):
            continue
        if dtype is not None:
            module.to(dtype)
        weight = module.weight
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            weight.data = weight.data.t().contiguous().t()
    if dtype is not None and not model.config.tie_embeddings:
        model.head.to(dtype)
    return model


def weight_bytes(model: GPT) -> int:
    """Bytes of weights that one token reads.

    Embedding tables do not count, because only one row is read; a tied head counts. Actions enter
    blocks once per frame.
    """
    per_frame = {p for m in model.modules() if isinstance(m, ActionInBlock) for p in m.modules()}
    read: list[Tensor] = [
        p for m in model.blocks.modules() if m not in per_frame for p in m.parameters(False)
    ]
    if model.config.tie_embeddings:
        read.append(model.embed.weight[: model.layout.vocab_size])
    else:
        read += model.head.parameters()
    quantized = [m for m in model.modules() if isinstance(m, Int8Linear) and m not in per_frame]
    return sum(part.nbytes for part in read) + sum(part.num_bytes for part in quantized)
