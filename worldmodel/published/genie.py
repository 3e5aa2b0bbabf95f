"""1X's GENIE world models, GENIE_35M and GENIE_138M: model.safetensors and config.json.

Apache-2.0, github.com/1x-technologies/1xgpt; the names of weights are those of its STMaskGIT.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizer.token_store import TokenSpec
from training.errors import BadInput
from training.foreign_weights import fill, read_file, state_dict
from worldmodel.dynamics.masked import Masked, MaskedConfig
from worldmodel.published.opened import Opened

BASE_WIDTH = 256  # of its muP
PIXELS_PER_TOKEN = 16  # side of what one token of its tokenizer shows
# Values of its config.json, and what they are where it leaves them out.
DEFAULTS: dict[str, Any] = {
    "T": 16,
    "S": 256,
    "image_vocab_size": 262144,
    "use_mup": False,
    "num_factored_vocabs": 1,
    "factored_vocab_size": None,  # which it works out from the two above
    "max_corrupt_rate": 0.2,
    "non_mlm_ratio": 0.5,
    "num_prompt_frames": 8,
    "qkv_bias": False,
    "proj_bias": True,
    "attn_drop": 0.0,  # never read there
    "qk_norm": True,
    "mlp_ratio": 4.0,
    "mlp_drop": 0.0,  # of training alone, and so is not kept
    "mlp_bias": True,
}
NEEDED = ("num_layers", "num_heads", "d_model")
# What the hub's own library adds to a config.json.
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
class Genie:
    """How to open it.

    Attributes:
        fps: frames per second of the videos that it is used on; 1X keeps every 15th of 30.
    """

    fps: float = 2.0

    def open(self, files: Sequence[Path]) -> Opened:
        """The weights and their config.json, in any order.

        Raises:
            BadInput: not these two files, a config that no such network has, or weights that are
                not the config's.
        """
        by_kind = {file.suffix: file for file in files}
        if len(files) != 2 or ".json" not in by_kind:
            raise BadInput(
                f"ckpt: {', '.join(str(file) for file in files)}; genie needs two files: "
                "model.safetensors,config.json"
            )
        (file,) = (file for suffix, file in by_kind.items() if suffix != ".json")
        values = _read_config(by_kind[".json"])
        config, spec = _config(values), _spec(values, self.fps)
        network = Masked(config, spec, 0)
        tensors = state_dict(read_file(file), file)
        for key in ("pos_embed_TSC", "token_embed.mask_token_embed"):
            if key in tensors and tensors[key].shape[0] == 1:
                tensors[key] = tensors[key][0]
        targets = network.state_dict()
        names = {key: foreign_name(key) for key in targets}
        weights, left_out = fill(targets, names, tensors, (), str(file))
        return Opened(config, spec, (), weights, left_out)


def foreign_name(key: str) -> str:
    """What STMaskGIT calls one of our weights."""
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


def _read_config(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read ({error}); give the published config.json") from (
            error
        )
    if not isinstance(values, dict):
        raise BadInput(f"{file}: holds no settings; give the published config.json")
    missing = sorted(set(NEEDED) - set(values))
    unknown = sorted(set(values) - set(NEEDED) - set(DEFAULTS) - set(OF_THE_HUB))
    if missing or unknown:
        raise BadInput(
            f"{file}: lacks {', '.join(missing) or 'nothing'}, and has {', '.join(unknown) or 'no'}"
            " settings that GENIE does not know; give the published config.json"
        )
    return {**DEFAULTS, **values}


def _config(values: dict[str, Any]) -> MaskedConfig:
    num_factors = values["num_factored_vocabs"]
    size = round(values["image_vocab_size"] ** (1 / num_factors))
    return MaskedConfig(
        dim=values["d_model"],
        num_layers=values["num_layers"],
        num_heads=values["num_heads"],
        mlp_ratio=values["mlp_ratio"],
        context_steps=values["T"],
        factors=(size,) * num_factors,
        qkv_bias=values["qkv_bias"],
        proj_bias=values["proj_bias"],
        mlp_bias=values["mlp_bias"],
        qk_norm=values["qk_norm"],
        mup_base_width=BASE_WIDTH if values["use_mup"] else 0,
        max_corrupt_rate=values["max_corrupt_rate"],
        non_mlm_ratio=values["non_mlm_ratio"],
        # Its trainer fails where the prompt is as long as the clip; evaluation never reads it.
        num_prompt_frames=min(values["num_prompt_frames"], values["T"] - 1),
    )


def _spec(values: dict[str, Any], fps: float) -> TokenSpec:
    side = math.isqrt(values["S"])
    if side * side != values["S"]:
        raise BadInput(f"S={values['S']} of config.json: is no square; its frames are")
    return TokenSpec(
        grid=(1, side, side),
        vocab_size=values["image_vocab_size"],
        fps=fps,
        frames_per_step=1,
        image_size=(PIXELS_PER_TOKEN * side, PIXELS_PER_TOKEN * side),
        tokenizer="magvit2",
        bit_order="little",
    )
