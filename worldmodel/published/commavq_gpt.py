"""commaVQ's world model: a GPT-2 with Hugging Face's names (MIT, github.com/commaai/commavq).

Its sequence is [BOS, 128 tokens] per frame, with BOS = 1024. This is our layout "none", whose
separator has the same id. Its head also predicts BOS, which we force. The row of BOS stays in the
head (`head_ids=all`), so `sequence_logits` is upstream's distribution. Scores and decoders use the
distribution without BOS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from training.foreign.weights import read_file, state_dict
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.published.gpt_files import (
    fitted,
    grid_of,
    num_layers,
    settings,
    tensor,
    weights_file,
)
from worldmodel.published.opened import OpenedWorldModel

PIXELS_PER_TOKEN = 16
GRID = (8, 16)
# Stored [in, out], by layers that Hugging Face calls Conv1D.
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# Causal masks, which are no weights.
MASKS = (".attn.bias", ".attn.masked_bias", "causal_mask")
PARTS = {
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.proj": "attn.c_proj",
    "mlp_norm": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}


@dataclass(frozen=True)
class GPT2Config:
    """The entries of config.json that are read."""

    n_head: PositiveInt | None = None
    tokens_per_frame: PositiveInt | None = None
    layer_norm_epsilon: PositiveFloat | None = None


@dataclass(frozen=True)
class CommaVQGPT:
    """Options of the adapter.

    Attributes:
        num_heads: number of heads; None: from the given config.json, or from the one beside the
            weights.
        grid: (rows, columns) of a frame; None: commaVQ's 8 x 16 if it fits, else one row.
    """

    num_heads: int | None = None
    grid: Sequence[int] | None = None

    def open(self, files: Sequence[Path]) -> OpenedWorldModel:
        """Open a flat state dict and its config.json.

        Raises:
            BadInput: the files hold another network, or the number of heads is unknown.
        """
        where = weights_file(files)
        tensors = state_dict(read_file(where), where)
        given = settings(files, where, GPT2Config)
        heads = self.num_heads or given.get("n_head")
        if not heads:
            raise BadInput(f"{where}: how many heads? give its config.json too, or num_heads=N")
        num_ids, dim = tensor(tensors, "transformer.wte.weight", where).shape
        positions = len(tensor(tensors, "transformer.wpe.weight", where))
        width = given.get("tokens_per_frame", 1 + GRID[0] * GRID[1])
        width = width if self.grid is None else 1 + self.grid[0] * self.grid[1]
        if positions % width or positions < 2 * width:
            raise BadInput(
                f"{where}: {positions} positions are no whole frames of {width} with BOS; "
                "give grid=[rows,columns]"
            )
        rows, columns = grid_of(self.grid, width - 1, GRID, where)
        size = (rows * PIXELS_PER_TOKEN, columns * PIXELS_PER_TOKEN)
        spec = TokenSpec((1, rows, columns), num_ids - 1, 20, 1, size, "commavq")
        config = GPTConfig(
            dim=dim,
            num_layers=num_layers(tensors, "transformer.h.", where),
            num_heads=heads,
            mlp_hidden=tensor(tensors, "transformer.h.0.mlp.c_fc.weight", where).shape[1],
            context_steps=positions // width,
            positions="learned",
            qk_norm=False,
            bias=True,
            look_back=0,
            head_ids="all",
            norm_eps=given.get("layer_norm_epsilon", 1e-5),
            tie_embeddings=False,
        )
        left_out = [key for key in tensors if key.endswith(MASKS)]
        for key in tensors:
            if key.endswith(TRANSPOSED):
                tensors[key] = tensors[key].T
        return fitted(config, spec, sources(config.num_layers), tensors, left_out, where)


def sources(layers: int) -> dict[str, str]:
    """Upstream's name of every weight of ours."""
    names = {
        "embed.weight": "transformer.wte.weight",
        "position.weight": "transformer.wpe.weight",
        "head.weight": "lm_head.weight",
    }
    for kind in ("weight", "bias"):
        names[f"norm.{kind}"] = f"transformer.ln_f.{kind}"
        for i in range(layers):
            for ours, theirs in PARTS.items():
                names[f"blocks.{i}.{ours}.{kind}"] = f"transformer.h.{i}.{theirs}.{kind}"
    return names
