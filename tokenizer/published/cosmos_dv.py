"""The discrete video tokenizers of NVIDIA Cosmos (nvidia-cosmos/cosmos-predict1).

Published as a TorchScript pair (encoder.jit, decoder.jit) and as one archive (autoencoder.jit); a
plain state dict of both opens too. All widths are read from the tensors, so all sizes of the
family open.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from drives.clips.preprocessing import Preprocessing
from tokenizer.networks.kinds import build_network
from tokenizer.networks.video.config import VideoAutoencoderConfig
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.torchscript import is_torchscript, read_torchscript
from tokenizer.quantizers.config import FSQConfig
from training.errors import BadInput
from training.foreign.weights import Tensors, fill, read_file, shape_of, state_dict

# Buffers that follow from the config: wavelets and tables.
# The dequantiser of decoder.jit wraps a quantizer.
QUANTIZERS = ("quantizer", "inv_quant.quantizer", "inv_quant")
TABLES = [
    f"{q}.{table}" for q in QUANTIZERS for table in ("_levels", "_basis", "implicit_codebook")
]
CONSTANTS = ("encoder.patcher3d.", "decoder.unpatcher3d.", *TABLES)
LEVELS = {6: (8, 8, 8, 5, 5, 5)}  # the published models, should their tables be missing
IMAGE_SIZES = {8: (256, 256), 16: (640, 1024)}
CONV = {"space": "0", "time": "1"}
RES_BLOCK = {
    "norm1": "norm1.norm",
    "norm2": "norm2.norm",
    "conv1.space": "conv1.0.conv3d",
    "conv1.time": "conv1.1.conv3d",
    "conv2.space": "conv2.0.conv3d",
    "conv2.time": "conv2.1.conv3d",
    "shortcut": "nin_shortcut.conv3d",
}
DOWNSAMPLE = {"space": "conv1.conv3d", "time": "conv2.conv3d", "mix": "conv3.conv3d"}
UPSAMPLE = {"time": "conv1.conv3d", "space": "conv2.conv3d", "mix": "conv3.conv3d"}


@dataclass(frozen=True)
class CosmosDV:
    """Options of the adapter.

    Attributes:
        image_size: (height, width) of frames in pixels, which the files do not hold. (): 256x256
            for tokens of 8 pixels, 640x1024 for tokens of 16.
        levels: levels of its FSQ; (): from the file, else those of the published models.
    """

    image_size: Sequence[int] = ()
    levels: Sequence[int] = ()

    def open(self, files: Sequence[Path]) -> OpenedTokenizer:
        """encoder.jit and decoder.jit, autoencoder.jit, or state dicts (.safetensors, .pt) of both.

        Raises:
            BadInput: an unreadable file, a missing half, another family, or leftover keys, by name.
        """
        tensors: Tensors = {}
        for file in files:
            for key, value in read_tensors(file).items():
                if key in tensors and not key.startswith(CONSTANTS):
                    raise BadInput(f"{file}: holds {key} again; give each half once")
                tensors[key] = value
        where = ", ".join(map(str, files))
        config = self.architecture(tensors, where)
        weights, left_out = convert(tensors, config, where)
        return OpenedTokenizer(config, weights, Preprocessing(), left_out)

    def architecture(self, tensors: Tensors, where: str) -> VideoAutoencoderConfig:
        """The config, from names and shapes of the tensors."""

        def shape(key: str) -> tuple[int, ...]:
            if key not in tensors:
                raise BadInput(
                    f"{where}: no tensor {key}; give the encoder.jit and decoder.jit, or the "
                    "autoencoder.jit, of a Cosmos discrete video tokenizer"
                )
            return shape_of(tensors, key, where, 5)

        def count(pattern: str) -> int:
            return len({m[1] for key in tensors if (m := re.match(pattern, key))})

        first, dim = shape("encoder.conv_in.0.conv3d.weight"), shape("quant_conv.conv3d.weight")
        shape("decoder.conv_in.0.conv3d.weight")
        patch = round((first[1] / 3) ** (1 / 3))
        levels = count(r"encoder\.down\.(\d+)\.")
        blocks = (f"encoder.down.{i}.block.0.conv1.0.conv3d.weight" for i in range(levels))
        space = patch * 2 ** count(r"encoder\.down\.(\d+)\.downsample\.conv1\.")
        time = patch * 2 ** count(r"encoder\.down\.(\d+)\.downsample\.conv2\.")
        attention = (f"encoder.down.{i}.attn.0.0.q.conv3d.weight" for i in range(levels))
        return VideoAutoencoderConfig(
            image_size=tuple(self.image_size) or IMAGE_SIZES.get(space, (256, 256)),
            quantizer=FSQConfig(self.fsq_levels(tensors, dim[0], where)),
            clip_frames=1 + 2 * time,
            time_downsampling=time,
            space_downsampling=space,
            patch=patch,
            channels=first[0],
            multipliers=tuple(shape(key)[0] // first[0] for key in blocks),
            num_res_blocks=count(r"encoder\.down\.0\.block\.(\d+)\."),
            latent_channels=dim[1],
            attention_levels=tuple(i for i, key in enumerate(attention) if key in tensors),
            early_upsampling=f"decoder.up.{levels - 1}.upsample.conv1.conv3d.weight" in tensors,
        )

    def fsq_levels(self, tensors: Tensors, dim: int, where: str) -> tuple[int, ...]:
        """Levels from the file; the option must not contradict them."""
        tables = (tensors.get(f"{quantizer}._levels") for quantizer in QUANTIZERS)
        found = [tuple(table.flatten().tolist()) for table in tables if table is not None]
        if len(set(found)) > 1:
            raise BadInput(f"{where}: hold FSQ levels {found}; give both halves of one tokenizer")
        noted = found[0] if found else ()
        if any(level != int(level) or level < 2 for level in noted):
            raise BadInput(f"{where}: notes FSQ levels {list(noted)}; are the tables damaged?")
        levels = tuple(self.levels) or noted or LEVELS.get(dim, ())
        if len(levels) != dim or (noted and levels != noted):
            raise BadInput(
                f"{where}: FSQ levels {list(levels)} do not fit its {dim} channels of codes"
                + f", which have {list(noted)} levels" * bool(noted)
                + "; give the model's levels=[8,8,8,5,5,5]"
            )
        return levels


def read_tensors(file: Path) -> Tensors:
    """All tensors of a TorchScript archive, a safetensors file or a pickled state dict."""
    if is_torchscript(file):
        return read_torchscript(file)
    return state_dict(read_file(file), file)


def convert(
    tensors: Tensors, config: VideoAutoencoderConfig, where: str
) -> tuple[Tensors, list[str]]:
    """Their tensors under our names, and the names of unused ones; as `weights.fill`."""
    with torch.device("meta"):
        targets = build_network(config).state_dict()
    keys = {ours: published_keys(ours, config) for ours in targets}
    parts: Tensors = {}
    for ours, theirs in keys.items():
        parts |= dict(zip(theirs, targets[ours].chunk(len(theirs)), strict=True))
    found, left_out = fill(parts, {key: key for key in parts}, tensors, CONSTANTS, where)
    return {ours: torch.cat([found[k] for k in theirs]) for ours, theirs in keys.items()}, left_out


def published_keys(ours: str, config: VideoAutoencoderConfig) -> list[str]:
    """The published names of one of our tensors; three (q, k, v) for a joint one."""
    module, leaf = ours.rsplit(".", 1)
    half, part = module.split(".", 1)
    if part in ("to_codes", "from_codes"):
        return [f"{'quant_conv' if half == 'encoder' else 'post_quant_conv'}.conv3d.{leaf}"]
    if part == "norm_out":
        return [f"{half}.norm_out.norm.{leaf}"]
    if part.startswith("conv_out."):
        return [f"{half}.conv_out.{CONV[part.split('.')[1]]}.conv3d.{leaf}"]
    _, index, *inner = part.split(".")
    block = _blocks(half, config)[int(index)]
    if "attn" in block:
        space_or_time, name = inner
        parts = {"norm": ["norm.norm"], "proj": ["proj_out.conv3d"]}.get(name)
        parts = parts or [f"{x}.conv3d" for x in "qkv"]
        return [f"{half}.{block}.{CONV[space_or_time]}.{p}.{leaf}" for p in parts]
    name = ".".join(inner)
    if block == "conv_in":
        renamed = f"{CONV[name]}.conv3d"
    elif block.endswith("downsample"):
        renamed = DOWNSAMPLE[name]
    else:
        renamed = UPSAMPLE[name] if block.endswith("upsample") else RES_BLOCK[name]
    return [f"{half}.{block}.{renamed}.{leaf}"]


def _blocks(half: str, config: VideoAutoencoderConfig) -> list[str]:
    """The published name of every one of our layers, in order."""
    down, levels = half == "encoder", len(config.multipliers)
    middle = ["mid.block_1", "mid.attn_1", "mid.block_2"]
    names = ["conv_in"] if down else ["conv_in", *middle]
    for level in range(levels) if down else reversed(range(levels)):
        where = f"{'down' if down else 'up'}.{level}"
        for block in range(config.num_res_blocks + (not down)):
            names.append(f"{where}.block.{block}")
            if level in config.attention_levels:
                names.append(f"{where}.attn.{block}")
        if down and level < levels - 1 and any(config.halvings(level)):
            names.append(f"{where}.downsample")
        if not down and level and any(config.doublings(level)):
            names.append(f"{where}.upsample")
    return names + (middle if down else [])
