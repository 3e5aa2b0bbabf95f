"""Names and shapes of VQGAN weights as the taming and Open-MAGVIT2 codebases write them."""

import re
from collections import Counter
from typing import Any

import torch

from tokenizer.quantizers import VQConfig
from tokenizer.vqgan import VQGANConfig
from training.errors import BadInput
from training.foreign_weights import Tensors, fill

# Ours -> theirs, tried in order; a name that nothing matches is the same in both.
SHARED = (
    (r"\.layers\.(down|up)_(\d+)_block_(\d+)\.", r".\1.\2.block.\3."),
    (r"\.layers\.(down|up)_(\d+)_attention_(\d+)\.", r".\1.\2.attn.\3."),
    (r"\.layers\.conv_in\.", ".conv_in."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"\.proj\.", ".proj_out."),
)
RULES = {
    "taming": (
        (r"\.layers\.down_(\d+)_resample\.", r".down.\1.downsample.conv."),
        (r"\.layers\.up_(\d+)_resample\.", r".up.\1.upsample.conv."),
        (r"\.layers\.mid_block_0\.", ".mid.block_1."),
        (r"\.layers\.mid_attention\.", ".mid.attn_1."),
        (r"\.layers\.mid_block_1\.", ".mid.block_2."),
    ),
    "magvit2": (
        (r"\.layers\.down_(\d+)_resample\.", r".down.\1.downsample."),
        (r"\.layers\.up_(\d+)_resample\.", r".up.\1.upsample.conv1."),
        (r"\.layers\.mid_block_(\d+)\.", r".mid_block.\1."),
    ),
}
CODEBOOK = "quantize.embedding.weight"


def foreign_name(key: str, style: str) -> str:
    """Their name of one of our weights."""
    if key == "quantizer.codebook":
        return CODEBOOK
    for pattern, theirs in (*SHARED, *RULES[style]):
        key = re.sub(pattern, theirs, key)
    return key


def load(
    config: VQGANConfig, tensors: Tensors, where: str, left_out: tuple[str, ...] = ()
) -> tuple[Tensors, list[str]]:
    """Their tensors under our names, and the names of those left out; as `weights.fill`.

    What a quantizer keeps for its training, besides codes, no file holds: it starts anew.
    """
    with torch.device("meta"):
        targets = config.build().state_dict()
    fresh = {f"quantizer.{k}": v for k, v in config.quantizer.build().state_dict().items()}
    fresh.pop("quantizer.codebook", None)
    sources = {key: foreign_name(key, config.style) for key in targets if key not in fresh}
    targets = {key: targets[key] for key in sources}
    weights, unused = fill(targets, sources, tensors, left_out, where)
    return weights | fresh, unused


def codebook(tensors: Tensors) -> VQConfig:
    """Of the size of theirs, with taming's own ("legacy") losses.

    It learns by gradients: a running mean without its counts would forget the codes at once.
    """
    vocab_size, dim = tensors[CODEBOOK].shape
    return VQConfig(
        vocab_size,
        dim,
        code_dim=dim,
        normalize=False,
        learn="gradient",
        commitment_weight=1.0,
        codebook_weight=0.25,
        kmeans_batches=0,
        dead_below=0.0,
    )


def architecture(tensors: Tensors, style: str, where: str) -> dict[str, Any]:
    """The fields of a `VQGANConfig` that the weights of the encoder show.

    Raises:
        BadInput: there is no encoder of this style, or its widths are not multiples of the first.
    """
    expect(tensors, style, where)
    widths, blocks = {}, Counter[int]()
    for key, tensor in tensors.items():
        found = re.fullmatch(r"encoder\.down\.(\d+)\.block\.\d+\.conv1\.weight", key)
        if found:
            widths[int(found[1])] = len(tensor)
            blocks[int(found[1])] += 1
    attention = {int(n) for key in tensors for n in re.findall(r"^encoder\.down\.(\d+)\.attn", key)}
    width = len(tensors["encoder.conv_in.weight"])
    levels = range(len(widths))
    if sorted(widths) != list(levels) or any(w % width for w in widths.values()):
        raise BadInput(
            f"{where}: its resolutions {sorted(widths)} have {sorted(widths.values())} channels; "
            f"one from 0 on each, and multiples of {width}, are needed"
        )
    return {
        "style": style,
        "width": width,
        "multipliers": tuple(widths[level] // width for level in levels),
        "num_res_blocks": blocks[0],
        "z_channels": len(tensors["encoder.conv_out.weight"]),
        "attention_levels": tuple(sorted(attention)),
    }


def expect(tensors: Tensors, style: str, where: str) -> None:
    """BadInput unless the weights are an encoder and a decoder of this style."""
    for half in ("encoder", "decoder"):
        if not any(key.startswith(f"{half}.") for key in tensors):
            some = ", ".join(sorted(tensors)[:3])
            raise BadInput(f"{where}: holds no {half} ({some}, ...); give a tokenizer's checkpoint")
    marks = {"taming": "encoder.mid.block_1.", "magvit2": "encoder.mid_block.0."}
    found = [s for s, mark in marks.items() if any(key.startswith(mark) for key in tensors)]
    needed = {"encoder.conv_in.weight", "encoder.conv_out.weight"}
    if found != [style] or not needed <= set(tensors):
        raise BadInput(
            f"{where}: is of the {found[0] if found else 'no known'} style, not of {style}; "
            "give tokenizer=magvit2, or tokenizer=taming, driving_simulator or commavq"
        )
