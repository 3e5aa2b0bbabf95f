"""1X's GENIE world models, GENIE_35M and GENIE_138M: model.safetensors and config.json.

Apache-2.0, github.com/1x-technologies/1xgpt. The weights have the names of its STMaskGIT.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from drives.tokens.store import TokenSpec
from training.disk.judging import judged
from training.disk.records import read_json
from training.errors import BadInput
from training.foreign.weights import fill, read_file, state_dict
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.masked.model import Masked
from worldmodel.published.opened import OpenedWorldModel

BASE_WIDTH = 256  # base width of its muP
PIXELS_PER_TOKEN = 16  # along each side
# Entries that the library of the hub adds to config.json.
OF_THE_HUB = ("architectures", "model_type", "torch_dtype", "transformers_version")
NAMES = {
    "space_norm": "norm1",
    "mlp_norm": "norm2",
    "space": "spatial_attn",
    "time": "temporal_attn",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}


@dataclass(frozen=True)
class GenieConfig:
    """The entries of config.json, with upstream's defaults.

    Three entries are not used. Upstream computes `factored_vocab_size` from the two entries above
    it and never reads `attn_drop`; `mlp_drop` matters only in training.
    """

    num_layers: PositiveInt
    num_heads: PositiveInt
    d_model: PositiveInt
    T: PositiveInt = 16
    S: PositiveInt = 256
    image_vocab_size: PositiveInt = 262144
    use_mup: bool = False
    num_factored_vocabs: PositiveInt = 1
    factored_vocab_size: PositiveInt | None = None
    max_corrupt_rate: float = 0.2
    non_mlm_ratio: float = 0.5
    num_prompt_frames: int = 8
    qkv_bias: bool = False
    proj_bias: bool = True
    attn_drop: float = 0.0
    qk_norm: bool = True
    mlp_ratio: PositiveFloat = 4.0
    mlp_drop: float = 0.0
    mlp_bias: bool = True


@dataclass(frozen=True)
class Genie:
    """Options of the adapter.

    Attributes:
        fps: frames per second of the videos; 1X keeps every 15th frame of 30 per second.
    """

    fps: float = 2.0

    def open(self, files: Sequence[Path]) -> OpenedWorldModel:
        """Open the weights and their config.json, in any order.

        Raises:
            BadInput: these are not the two files, the config is not of such a network, or the
                weights do not fit the config.
        """
        by_kind = {file.suffix: file for file in files}
        if len(files) != 2 or ".json" not in by_kind:
            raise BadInput(
                f"ckpt: {', '.join(str(file) for file in files)}; genie needs two files: "
                "model.safetensors,config.json"
            )
        (file,) = (file for suffix, file in by_kind.items() if suffix != ".json")
        given = _read_config(by_kind[".json"])
        config, spec = _config(given), _spec(given, self.fps)
        network = Masked(config, spec, 0)
        tensors = state_dict(read_file(file), file)
        for key in ("pos_embed_TSC", "token_embed.mask_token_embed"):
            if key in tensors and tensors[key].shape[0] == 1:
                tensors[key] = tensors[key][0]
        targets = network.state_dict()
        names = {key: foreign_name(key) for key in targets}
        weights, left_out = fill(targets, names, tensors, (), str(file))
        return OpenedWorldModel(config, spec, (), weights, left_out)


def foreign_name(key: str) -> str:
    """The name in STMaskGIT of one of our weights."""
    whole = {
        "mask_token": "token_embed.mask_token_embed",
        "position": "pos_embed_TSC",
        "head.weight": "out_x_proj.weight",
        "head.bias": "out_x_proj.bias",
    }
    if key in whole:
        return whole[key]
    if key.startswith("embeds."):
        return f"token_embed.factored_{key}"
    match = re.fullmatch(r"blocks\.(\d+)\.(\w+)\.(.+)", key)
    assert match is not None
    layer, part, rest = match.groups()
    return f"decoder.layers.{layer}.{NAMES[part]}.{rest}"


def _read_config(file: Path) -> GenieConfig:
    values = read_json(file)
    if not isinstance(values, dict):
        raise BadInput(f"{file}: holds no settings; give the published config.json")
    return judged(GenieConfig, {k: v for k, v in values.items() if k not in OF_THE_HUB}, str(file))


def _config(given: GenieConfig) -> MaskedConfig:
    num_factors = given.num_factored_vocabs
    size = round(given.image_vocab_size ** (1 / num_factors))
    return MaskedConfig(
        dim=given.d_model,
        num_layers=given.num_layers,
        num_heads=given.num_heads,
        mlp_ratio=given.mlp_ratio,
        context_steps=given.T,
        factors=(size,) * num_factors,
        qkv_bias=given.qkv_bias,
        proj_bias=given.proj_bias,
        mlp_bias=given.mlp_bias,
        qk_norm=given.qk_norm,
        mup_base_width=BASE_WIDTH if given.use_mup else 0,
        max_corrupt_rate=given.max_corrupt_rate,
        non_mlm_ratio=given.non_mlm_ratio,
        # Upstream's trainer fails if the prompt is as long as the clip; evaluation ignores it.
        num_prompt_frames=min(given.num_prompt_frames, given.T - 1),
        look_back=0,
    )


def _spec(given: GenieConfig, fps: float) -> TokenSpec:
    side = math.isqrt(given.S)
    if side * side != given.S:
        raise BadInput(f"S={given.S} of config.json: is no square; its frames are")
    return TokenSpec(
        grid=(1, side, side),
        vocab_size=given.image_vocab_size,
        fps=fps,
        frames_per_step=1,
        image_size=(PIXELS_PER_TOKEN * side, PIXELS_PER_TOKEN * side),
        tokenizer="magvit2",
        bit_order="little",
    )
