"""A GPT's weights as one-token steps read them: every one of them once per token."""

import copy

import torch
from torch import Tensor, nn

from training.errors import BadInput
from worldmodel.decoding.quantized import Int8Linear, quantize, why_not_int8
from worldmodel.dynamics.gpt.model import GPT

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


def for_decoding(model: GPT, dtype: torch.dtype | str | None = None) -> GPT:
    """A frozen copy of the model whose linear layers are stored for one-token steps.

    Bytes are time. `dtype` lowers the linear layers alone (norms, embeddings and the residual
    stream stay as they are); int8 also the cache of a decoder of this model. Without it nothing
    is rounded. On a CPU, float32 weights are stored column by column, because its matrix-vector
    product reads them faster that way.

    Raises:
        BadInput: the name of no precision, or int8 where it does not run.
    """
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise BadInput(f"dtype={dtype}; choose {', '.join(DTYPES)}")
        dtype = DTYPES[dtype]
    model = copy.deepcopy(model).eval().requires_grad_(False)
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

    The embedding tables give one row each and do not count; a tied head does.
    """
    read: list[Tensor] = list(model.blocks.parameters())
    if model.config.tie_embeddings:
        read.append(model.embed.weight[: model.layout.vocab_size])
    else:
        read += model.head.parameters()
    quantized = [part for part in model.modules() if isinstance(part, Int8Linear)]
    return sum(part.nbytes for part in read) + sum(part.num_bytes for part in quantized)
