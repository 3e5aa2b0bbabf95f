"""Names and shapes of VQGAN weights in several codebases."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from drives.clips.preprocessing import Preprocessing
from tokenizer.networks.config import VQGANConfig
from tokenizer.networks.kinds import build_network
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.quantizers.config import QuantizerConfig, VQConfig
from tokenizer.quantizers.kinds import build_quantizer
from training.errors import BadInput
from training.foreign.weights import Tensors, fill, shape_of

# Ours -> theirs, tried in order; a name without a match is equal in both.
SHARED = (
    (r"\.layers\.(down|up)_(\d+)_block_(\d+)\.", r".\1.\2.block.\3."),
    (r"\.layers\.(down|up)_(\d+)_attention_(\d+)\.", r".\1.\2.attn.\3."),
    (r"\.layers\.conv_in\.", ".conv_in."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"\.proj\.", ".proj_out."),
)
TAMING = (
    (r"\.layers\.down_(\d+)_resample\.", r".down.\1.downsample.conv."),
    (r"\.layers\.up_(\d+)_resample\.", r".up.\1.upsample.conv."),
    (r"\.layers\.mid_block_0\.", ".mid.block_1."),
    (r"\.layers\.mid_attention\.", ".mid.attn_1."),
    (r"\.layers\.mid_block_1\.", ".mid.block_2."),
)
MAGVIT2 = (
    (r"\.layers\.down_(\d+)_resample\.", r".down.\1.downsample."),
    (r"\.layers\.up_(\d+)_resample\.", r".up.\1.upsample.conv1."),
    (r"\.layers\.mid_block_(\d+)\.", r".mid_block.\1."),
    (r"\.layers\.up_(\d+)_norm\.scale\.", r".adaptive.\1.gamma."),
    (r"\.layers\.up_(\d+)_norm\.shift\.", r".adaptive.\1.beta."),
)
LLAMAGEN = (
    (r"\.(down|up)\.(\d+)\.block\.", r".conv_blocks.\2.res."),
    (r"\.(down|up)\.(\d+)\.(attn|downsample|upsample)\.", r".conv_blocks.\2.\3."),
    (r"\.mid\.block_1\.", ".mid.0."),
    (r"\.mid\.attn_1\.", ".mid.1."),
    (r"\.mid\.block_2\.", ".mid.2."),
)


@dataclass(frozen=True)
class Layout:
    """A codebase's names of the weights of a VQGAN.

    Attributes:
        mark: a name prefix that no layout before this one has.
        style: of the network.
        adapters: names of its adapters, for messages.
        rules: from our names to theirs, after `SHARED`.
        down: the encoder's list of resolutions, and the residual blocks of each.
        deepest_first: the decoder counts its resolutions from the lowest.
    """

    mark: str
    style: str
    adapters: str
    rules: tuple[tuple[str, str], ...]
    down: tuple[str, str] = ("down", "block")
    deepest_first: bool = False

    def is_in(self, key: str) -> bool:
        return key.startswith(self.mark)


LAYOUTS = {
    "llamagen": Layout(
        "encoder.mid.0.", "taming", "llamagen", (*TAMING, *LLAMAGEN), ("conv_blocks", "res"), True
    ),
    "open_magvit2": Layout("decoder.adaptive.", "open_magvit2", "open_magvit2", MAGVIT2),
    "magvit2": Layout("encoder.mid_block.0.", "magvit2", "magvit2", MAGVIT2),
    "taming": Layout(
        "encoder.mid.block_1.", "taming", "taming, ibq, driving_simulator or commavq", TAMING
    ),
}
CODEBOOK = "quantize.embedding.weight"


def foreign_name(key: str, layout: str, levels: int) -> str:
    """Their name of one of our weights, in a network with `levels` resolutions."""
    if key == "quantizer.codebook":
        return CODEBOOK
    if LAYOUTS[layout].deepest_first:
        key = re.sub(r"\.up_(\d+)_", lambda found: f".up_{levels - 1 - int(found[1])}_", key)
    for pattern, theirs in (*SHARED, *LAYOUTS[layout].rules):
        key = re.sub(pattern, theirs, key)
    return key


def load(
    config: VQGANConfig,
    tensors: Tensors,
    where: str,
    left_out: Sequence[str] = (),
    layout: str = "",
) -> tuple[Tensors, list[str]]:
    """Their tensors under our names, and the names of unused ones; as `weights.fill`.

    The quantizer's training state (all but the codes) is in no file; it is reset.

    Args:
        layout: of their names; "": the layout named like the style.
    """
    with torch.device("meta"):
        targets = build_network(config).state_dict()
    fresh = {f"quantizer.{k}": v for k, v in build_quantizer(config.quantizer).state_dict().items()}
    fresh.pop("quantizer.codebook", None)
    layout, levels = layout or config.style, len(config.multipliers)
    sources = {key: foreign_name(key, layout, levels) for key in targets if key not in fresh}
    targets = {key: targets[key] for key in sources}
    weights, unused = fill(targets, sources, tensors, left_out, where)
    return weights | fresh, unused


def opened(
    size: Sequence[int],
    quantizer: QuantizerConfig,
    shape: dict[str, Any],
    tensors: Tensors,
    file: Path,
    left_out: Sequence[str],
) -> OpenedTokenizer:
    """A tokenizer of one file whose `architecture` is `shape`; raises as `load`."""
    config = VQGANConfig(image_size=tuple(size), quantizer=quantizer, **shape)
    weights, unused = load(config, tensors, str(file), left_out)
    return OpenedTokenizer(config, weights, Preprocessing(), unused)


def codebook(tensors: Tensors, where: str, **changes: Any) -> VQConfig:
    """The config of their codebook, with taming's own ("legacy") losses.

    It learns by gradients: an EMA without its counts would forget the codes at once.

    Raises:
        BadInput: there is no codebook, e.g. for another kind of quantizer.
    """
    if CODEBOOK not in tensors:
        others = sorted(key for key in tensors if key.startswith("quantize."))
        raise BadInput(
            f"{where}: has no codebook {CODEBOOK} (but {', '.join(others) or 'none at all'}); "
            "those with a VectorQuantizer open"
        )
    vocab_size, dim = shape_of(tensors, CODEBOOK, where, 2)
    config = VQConfig(
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
    return replace(config, **changes)


def architecture(tensors: Tensors, layout: str, where: str) -> dict[str, Any]:
    """Fields of a `VQGANConfig`, from the shapes of the encoder's weights.

    Raises:
        BadInput: no encoder of this layout, or its widths are not multiples of the first.
    """
    expect(tensors, layout, where)
    down, block = LAYOUTS[layout].down
    first = re.compile(rf"encoder\.{down}\.(\d+)\.{block}\.\d+\.conv1\.weight")
    widths, blocks = {}, Counter[int]()
    for key in tensors:
        found = first.fullmatch(key)
        if found:
            widths[int(found[1])] = shape_of(tensors, key, where, 4)[0]
            blocks[int(found[1])] += 1
    attends = re.compile(rf"encoder\.{down}\.(\d+)\.attn\.")
    attention = {int(found[1]) for key in tensors if (found := attends.match(key))}
    width = shape_of(tensors, "encoder.conv_in.weight", where, 4)[0]
    levels = range(len(widths))
    if sorted(widths) != list(levels) or any(w % width for w in widths.values()):
        raise BadInput(
            f"{where}: its resolutions {sorted(widths)} have {sorted(widths.values())} channels; "
            f"one from 0 on each, and multiples of {width}, are needed"
        )
    return {
        "style": LAYOUTS[layout].style,
        "width": width,
        "multipliers": tuple(widths[level] // width for level in levels),
        "num_res_blocks": blocks[0],
        "z_channels": shape_of(tensors, "encoder.conv_out.weight", where, 4)[0],
        "attention_levels": tuple(sorted(attention)),
    }


def expect(tensors: Tensors, layout: str, where: str) -> None:
    """BadInput unless the weights are an encoder and a decoder of this layout."""
    for half in ("encoder", "decoder"):
        if not any(key.startswith(f"{half}.") for key in tensors):
            some = ", ".join(sorted(tensors)[:3])
            raise BadInput(f"{where}: holds no {half} ({some}, ...); give a tokenizer's checkpoint")
    found = next((n for n, kind in LAYOUTS.items() if any(map(kind.is_in, tensors))), "")
    if found != layout or not {"encoder.conv_in.weight", "encoder.conv_out.weight"} <= set(tensors):
        known = [LAYOUTS[found]] if found and found != layout else LAYOUTS.values()
        raise BadInput(
            f"{where}: is of the {found or 'no known'} style, not of {layout}; "
            f"give tokenizer={', or '.join(kind.adapters for kind in known)}"
        )
