"""VaViM, the video model of VideoActionModel: GPT-2 with muP (github.com/valeoai/VideoActionModel).

Frames follow each other without a separator. The position embedding is temporal plus spatial.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import PositiveInt

from drives.tokens.store import TokenSpec
from training.disk.judging import judged
from training.errors import BadInput
from training.foreign.weights import Tensors, read_file, state_dict
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.published.gpt_files import (
    fitted,
    grid_of,
    num_layers,
    tensor,
    weights_file,
)
from worldmodel.published.opened import OpenedWorldModel

GRID, PIXELS_PER_TOKEN = (18, 32), 16
# Vocabulary of LlamaGen's tokenizer; the published model has one more id, which no frame uses.
CODES = 16_384
PARTS = {
    "attention.qkv": "attn.c_attn",
    "attention.proj": "attn.c_proj",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}


@dataclass(frozen=True)
class VaViM:
    """Options of the adapter.

    Attributes:
        dim_heads: channels per head; None: from the settings in the checkpoint.
        mup_base_width: embedding_dim of muP's base shapes; None: from the given .bsh file, or
            from the one beside the weights that the checkpoint names.
        grid: (rows, columns) of a frame; None: 18 x 32 if it fits, else one row.
        fps: frames per second of the videos.
    """

    dim_heads: int | None = None
    mup_base_width: int | None = None
    grid: Sequence[int] | None = None
    fps: float = 2.0

    def open(self, files: Sequence[Path]) -> OpenedWorldModel:
        """Open a Lightning checkpoint and muP's base shapes.

        Raises:
            BadInput: the files hold another network, or the base width is unknown.
        """
        where = weights_file(files, (".bsh",))
        values = read_file(where)
        tensors = state_dict(values, where)
        tensors = {k.removeprefix("network."): v for k, v in tensors.items()}
        given = _settings(values, self.dim_heads, where)
        base = self.mup_base_width or _base_width(files, where, values)
        vocab, dim = tensor(tensors, "transformer.wie.weight", where).shape
        space = len(tensor(tensors, "transformer.wse.weight", where))
        rows, columns = grid_of(self.grid, space, GRID, where)
        size = (rows * PIXELS_PER_TOKEN, columns * PIXELS_PER_TOKEN)
        if dim % given["dim_heads"]:
            raise BadInput(
                f"{where}: dim_heads={given['dim_heads']} does not divide its {dim} channels; give "
                "dim_heads=N"
            )
        unused = int(vocab == CODES + 1)
        spec = TokenSpec((1, rows, columns), vocab - unused, self.fps, 1, size, "llamagen")
        tied = bool(given.get("output_tied", True))
        config = GPTConfig(
            dim=dim,
            num_layers=num_layers(tensors, "transformer.h.", where),
            num_heads=dim // given["dim_heads"],
            mlp_hidden=len(tensor(tensors, "transformer.h.0.mlp.c_fc.weight", where)),
            context_steps=len(tensor(tensors, "transformer.wte.weight", where)),
            positions="factored",
            qk_norm=False,
            gelu="none",
            tie_embeddings=tied,
            look_back=0,
            mup_base_width=base,
            norm_affine=False,
            head_ids="all",
            unused_ids=unused,
            attention_scale=given["attn_scale"] / given["dim_heads"],
            output_scale=given["output_scale"],
            layout=LayoutConfig("none", separator=False),
        )
        left_out = _tied_head(tensors, where) if tied else []
        return fitted(config, spec, _sources(config), tensors, left_out, where)


def _settings(values: dict[str, Any], dim_heads: int | None, where: Path) -> dict[str, Any]:
    """Checked arguments of the network; `dim_heads` replaces the checkpoint's."""
    found = values.get("hyper_parameters", {})
    found = found.get("network", found) if isinstance(found, dict) else {}
    found = found if isinstance(found, dict) else {}
    given = {"attn_scale": 1.0, "output_scale": 1.0, "output_tied": True, **found}
    given["dim_heads"] = dim_heads or given.get("dim_heads")
    if not given["dim_heads"]:
        raise BadInput(
            f"{where}: does not say its network's dim_heads (hyper_parameters.network); "
            "give the published checkpoint, not its weights alone, or dim_heads=N"
        )
    for name, kind in (("dim_heads", int), ("attn_scale", float), ("output_scale", float)):
        value = given[name]
        if not isinstance(value, kind | int) or isinstance(value, bool) or value <= 0:
            remedy = "give dim_heads=N" if name == "dim_heads" else "give the published checkpoint"
            raise BadInput(f"{where}: its network's {name} is {value!r}; {remedy}")
    return given


def _base_width(files: Sequence[Path], where: Path, values: dict[str, Any]) -> int:
    """Width of the base network of muP."""
    given = [file for file in files if file.suffix == ".bsh"]
    settings = values.get("hyper_parameters")
    named = settings.get("mup_base_shapes") if isinstance(settings, dict) else None
    name = Path(named).name if isinstance(named, str) else ""
    file = given[0] if given else where.with_name(name or "mup_base_shapes.bsh")
    if not file.is_file():
        raise BadInput(
            f"{file}: no such file; give the base shapes beside the weights "
            "(ckpt=weights,shapes.bsh), or mup_base_width=N"
        )
    try:
        return judged(
            PositiveInt, yaml.safe_load(file.read_text())["transformer.wie.weight"][1], str(file)
        )
    except (yaml.YAMLError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise BadInput(f"{file}: holds no base shape of transformer.wie.weight") from error


def _tied_head(tensors: Tensors, where: Path) -> list[str]:
    """The name of the tied head, to leave out; BadInput if it differs from the embedding."""
    head = tensors.get("lm_head.weight")
    if head is not None and not torch.equal(head, tensors["transformer.wie.weight"]):
        raise BadInput(
            f"{where}: output_tied, but lm_head.weight is not transformer.wie.weight; "
            "give the published checkpoint"
        )
    return [] if head is None else ["lm_head.weight"]


def _sources(config: GPTConfig) -> dict[str, str]:
    """Upstream's name of every weight of ours."""
    names = {
        "embed.weight": "transformer.wie.weight",
        "time_position.weight": "transformer.wte.weight",
        "space_position.weight": "transformer.wse.weight",
    }
    if not config.tie_embeddings:
        names["head.weight"] = "lm_head.weight"
    for i in range(config.num_layers):
        for ours, theirs in PARTS.items():
            names[f"blocks.{i}.{ours}.weight"] = f"transformer.h.{i}.{theirs}.weight"
    return names
