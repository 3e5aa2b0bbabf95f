"""Cosmos-Predict1's autoregressive transformers: a Llama over video tokens in raster order.

Code: Apache-2.0 (github.com/nvidia-cosmos/cosmos-predict1); the weights have their own licence.
Frames follow each other without a separator. The base models have 1B, 4B and 12B parameters. The
models with 5B and 13B also attend to a text, and read <bov> before the first token. Its embedding
is the first row after the rows of the head; further rows only pad the table to a multiple of 64.
<bov> has no position: its RoPE angle is 0, it gets no position embedding, and positions of the
video begin after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt

from drives.tokens.store import TokenSpec
from training.disk.judging import judged
from training.errors import BadInput
from training.foreign.weights import Tensors, read_file, state_dict
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.published.gpt_files import (
    fitted,
    num_layers,
    settings,
    tensor,
    weights_file,
)
from worldmodel.published.opened import OpenedWorldModel

# Values of the published models, for entries that no config.json gives.
LATENT_SHAPE = (5, 40, 64)
YARN: dict[str, Any] = {
    "yarn_scale": 2,
    "yarn_beta_fast": 4,
    "yarn_beta_slow": 1,
    "original_latent_shape": (3, 40, 64),
}
EMBEDDING = "tok_embeddings.weight"
PIXELS_PER_TOKEN, FRAMES_PER_STEP = 16, 8
ATTENTION = {"proj": "wo", "query_norm": "q_norm", "key_norm": "k_norm"}


@dataclass(frozen=True)
class CosmosParams:
    """The entries of config.json that are read."""

    rope_dim: str | None = None
    video_latent_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    n_layers: PositiveInt | None = None
    n_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    norm_eps: PositiveFloat | None = None
    rope_theta: PositiveFloat | None = None
    apply_abs_pos_emb: bool | None = None
    apply_yarn: bool | None = None
    yarn_scale: PositiveFloat | None = None
    yarn_beta_fast: PositiveFloat | None = None
    yarn_beta_slow: PositiveFloat | None = None
    original_latent_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None


@dataclass(frozen=True)
class CosmosAR:
    """Options of the adapter.

    Attributes:
        latent_shape: (time steps, rows, columns) of the tokens of a clip; None: from the given
            config.json, or from the one beside the weights, else (5, 40, 64).
        fps: frames per second of the videos.
    """

    latent_shape: Sequence[int] | None = None
    fps: float = 24.0

    def open(self, files: Sequence[Path]) -> OpenedWorldModel:
        """Open a state dict, with or without "model." before its names, and its config.json.

        Raises:
            BadInput: the files hold another network.
        """
        where = weights_file(files)
        tensors = _tensors(where)
        given = settings(files, where, CosmosParams)
        if given.get("rope_dim", "3D") != "3D":
            raise BadInput(f"{where}: rope_dim={given['rope_dim']}; only 3D is a world model's")
        shape = self.latent_shape or given.get("video_latent_shape", LATENT_SHAPE)
        steps, rows, columns = judged(tuple[PositiveInt, ...], list(shape), "latent_shape")
        config = _config(tensors, given, steps, where)
        vocab = len(tensors["output.weight"])
        _split_padding(tensors, vocab)
        spec = TokenSpec(
            grid=(1, rows, columns),
            vocab_size=vocab,
            fps=self.fps,
            frames_per_step=FRAMES_PER_STEP,
            image_size=(rows * PIXELS_PER_TOKEN, columns * PIXELS_PER_TOKEN),
            tokenizer="cosmos_dv",
        )
        names = _fuse(tensors, config)
        return fitted(config, spec, names, tensors, (f"{EMBEDDING}[",), where)


def _split_padding(tensors: Tensors, vocab: int) -> None:
    """Rename the padding rows of the embedding, after <bov>; no id uses them."""
    rows, needed = tensors[EMBEDDING], vocab + 1
    if len(rows) > needed:
        tensors[EMBEDDING] = rows[:needed]
        tensors[f"{EMBEDDING}[{needed}:{len(rows)}]"] = rows[needed:]


def _tensors(where: Path) -> Tensors:
    values = read_file(where)
    values = values["model"] if isinstance(values.get("model"), dict) else values
    kept = {k: v for k, v in values.items() if not str(k).endswith("_extra_state")}
    return {k.removeprefix("model."): v for k, v in state_dict(kept, where).items()}


def _config(tensors: Tensors, given: dict[str, Any], steps: int, where: Path) -> GPTConfig:
    first = "layers.0.attention."
    width, dim = tensor(tensors, f"{first}wq.weight", where).shape
    qk_norm = tensors.get(f"{first}q_norm.weight")
    head_dim = len(qk_norm) if qk_norm is not None else given.get("head_dim")
    if not head_dim:
        if not given.get("n_heads"):
            raise BadInput(f"{where}: how many heads? give its config.json (n_heads) too")
        head_dim = width // given["n_heads"]
    layers = num_layers(tensors, "layers.", where)
    vocab = len(tensor(tensors, "output.weight", where))
    context_dim, every = _text(tensors, layers, where)
    yarn = given.get("apply_yarn", "n_layers" not in given and width != dim)
    slowed = {**YARN, **given}
    return GPTConfig(
        dim=dim,
        num_layers=layers,
        num_heads=width // head_dim,
        num_kv_heads=len(tensor(tensors, f"{first}wk.weight", where)) // head_dim,
        head_channels=head_dim,
        mlp="swiglu",
        mlp_hidden=len(tensor(tensors, "layers.0.feed_forward.w1.weight", where)),
        context_steps=steps,
        rope_theta=float(given.get("rope_theta", 500_000)),
        qk_norm=qk_norm is not None,
        qk_norm_eps=1e-5,
        norm="rms",
        norm_eps=float(given.get("norm_eps", 1e-5)),
        look_back=0,
        yarn_scale=float(slowed["yarn_scale"]) if yarn else 1.0,
        yarn_beta_fast=float(slowed["yarn_beta_fast"]),
        yarn_beta_slow=float(slowed["yarn_beta_slow"]),
        yarn_original=tuple(slowed["original_latent_shape"][:2]),
        sinusoid=bool(given.get("apply_abs_pos_emb", context_dim > 0)),
        context_dim=context_dim,
        cross_every=every,
        layout=LayoutConfig(
            "none",
            separator=False,
            start_token=len(tensor(tensors, EMBEDDING, where)) > vocab,
        ),
        tie_embeddings=False,
    )


def _text(tensors: Tensors, layers: int, where: Path) -> tuple[int, int]:
    """Width of the text, and the distance between layers with cross-attention; (0, 1): none."""
    key = "layers.{}.cross_attention.wk.weight"
    reading = [i for i in range(layers) if key.format(i) in tensors]
    if not reading:
        return 0, 1
    every = reading[1] if len(reading) > 1 else layers
    if reading != list(range(0, layers, every)):
        raise BadInput(f"{where}: layers {reading} attend to a text; every k-th from 0 is needed")
    return tensors[key.format(0)].shape[1], every


def _fuse(tensors: Tensors, config: GPTConfig) -> dict[str, str]:
    """Stack projections that are one weight here; return upstream's name of each of our weights."""
    names = {
        "embed.weight": EMBEDDING,
        "norm.weight": "norm.weight",
        "head.weight": "output.weight",
    }
    for i in range(config.num_layers):
        ours, theirs = f"blocks.{i}.", f"layers.{i}."
        for kind in ("attention", "cross_attention"):
            if kind == "cross_attention" and (not config.context_dim or i % config.cross_every):
                continue
            _join(tensors, f"{theirs}{kind}.", "kv" if kind == "cross_attention" else "qkv")
            parts = {k: v for k, v in ATTENTION.items() if config.qk_norm or k == "proj"}
            if kind == "attention":
                parts["qkv"] = "wqkv"
            else:
                parts |= {"query": "wq", "context_kv": "wkv"}
            for mine, yours in parts.items():
                names[f"{ours}{kind}.{mine}.weight"] = f"{theirs}{kind}.{yours}.weight"
            norm = "attention_norm" if kind == "attention" else "cross_norm"
            names[f"{ours}{norm}.weight"] = f"{theirs}{kind}_norm.weight"
        names[f"{ours}mlp_norm.weight"] = f"{theirs}ffn_norm.weight"
        for mine, yours in (("gate", "w1"), ("down", "w2"), ("up", "w3")):
            names[f"{ours}{mine}.weight"] = f"{theirs}feed_forward.{yours}.weight"
    return names


def _join(tensors: Tensors, prefix: str, letters: str) -> None:
    """Stack the projections `wq`, `wk`, `wv` if all exist with one width.

    Otherwise `fill` names the missing or wrong part.
    """
    keys = [f"{prefix}w{letter}.weight" for letter in letters]
    if not all(key in tensors and tensors[key].ndim == 2 for key in keys):
        return
    if tensors[keys[-1]].shape != tensors[keys[-2]].shape:
        return
    if len({tensors[key].shape[1] for key in keys}) == 1:
        tensors[f"{prefix}w{letters}.weight"] = torch.cat([tensors.pop(key) for key in keys])
