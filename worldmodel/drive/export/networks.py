"""The networks of a dream, described for the page: a GPT, and an autoencoder's decoder.

What the page does not compute is refused here, one setting at a time.
"""

from typing import Any

import torch
from torch import nn

from tokenizer.load import Tokenizer
from tokenizer.networks.autoencoder import (
    Autoencoder,
    ConvDecoder,
    ResBlock,
    ShuffleUp,
    SpatialAttention,
    Upsample,
)
from training.errors import BadInput
from worldmodel.codec.exact.tables import exp_tables, floats, normal_tables, tanh_tables
from worldmodel.drive.export.tensors import Tensors, check_layers
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.gpt.blocks import Block
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.gpt.model import GPT

# What the page computes; it has no other kind of these.
NETWORK = {
    "positions": ("rope",),
    "sinusoid": (False,),
    "norm": ("layer",),
    "mlp": ("gelu",),
    "factors": ((),),
    "context_dim": (0,),
    "context_tokens": (0,),
    "mup_base_width": (0,),
    "output_scale": (1.0,),
}
LAYOUT = {
    "actions": ("none", "continuous"),
    "action_input": ("input",),
    "action_features": ((),),
    "separator": (True,),
    "start_token": (False,),
    "text_tokens": (0,),
    "predict_actions": (0.0,),
}


def check_network(network: Dynamics) -> None:
    """BadInput for a model that the page cannot compute."""
    if not isinstance(network, GPT):
        raise BadInput(
            f"export: this is a {type(network).__name__}; the file dreams with a GPT alone, so "
            "drive this model by the page of the server"
        )
    config: GPTConfig = network.config
    for where, part, known in (("", config, NETWORK), ("layout.", config.layout, LAYOUT)):
        for name, able in known.items():
            value = getattr(part, name)
            if value not in able:
                raise BadInput(
                    f"export: {where}{name}={value}, and the file computes "
                    f"{' or '.join(map(str, able))}; drive this model by the page of the server"
                )
    check_layers(network)


def check_tokenizer(tokenizer: Tokenizer | None) -> None:
    """BadInput for a tokenizer that the page cannot compute, or none."""
    if tokenizer is None:
        raise BadInput("export: the frames need the tokenizer of the tokens; give tokenizer=FOLDER")
    if not isinstance(tokenizer.network, Autoencoder):
        raise BadInput(
            f"export: its tokenizer is a {type(tokenizer.network).__name__}; the file decodes "
            "images of an autoencoder alone, so drive this model by the page of the server"
        )
    check_layers(tokenizer.network.decoder)


def tables(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Those of `worldmodel.codec.exact`."""
    made = {"exp": exp_tables, "none": normal_tables, "tanh": tanh_tables}
    return {name: tuple(map(tensors.floats, floats(table))) for name, table in made.items()}


def of_gpt(model: GPT, tensors: Tensors) -> dict[str, Any]:
    """A GPT that is ready for decoding.

    Raises:
        BadInput: as of `check_network`.
    """
    check_network(model)
    config, layout = model.config, model.layout
    table = model.embed.weight[: layout.num_ids]
    head = table if config.tie_embeddings else model.head.weight
    rope = model.rope(0, model.num_positions)
    assert rope is not None
    assert isinstance(head, torch.Tensor)
    found: dict[str, Any] = {
        "dim": config.dim,
        "heads": config.num_heads,
        "kv_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "scale": config.attention_scale or config.head_dim**-0.5,
        "context": config.context_steps,
        "grid": [layout.height, layout.width],
        "vocab": layout.vocab_size,
        "start_id": layout.vocab_size,
        "no_action_id": layout.no_action_id,
        "gelu": config.gelu,
        "embed": tensors.floats(table),
        "head": tensors.layer(head[: layout.vocab_size]),
        "norm": tensors.norm(model.norm),
        "cos": tensors.floats(rope.cos),
        "sin": tensors.floats(rope.sin),
        "blocks": [_block(block, tensors) for block in model.blocks],
        "action": None,
        "look_back": tensors.convolution(model.look_back) if config.look_back else None,
    }
    if layout.config.actions == "continuous":
        standard = model.action.standard
        found["action"] = {
            "mean": model.action.mean.tolist() if standard else None,
            "std": model.action.std.tolist() if standard else None,
            "first": tensors.linear(model.action[0]),
            "second": tensors.linear(model.action[2]),
        }
    return found


def _block(block: Any, tensors: Tensors) -> dict[str, Any]:
    assert isinstance(block, Block)
    attention = block.attention
    query, key = attention.query_norm, attention.key_norm
    return {
        "attention_norm": tensors.norm(block.attention_norm),
        "qkv": tensors.linear(attention.qkv),
        "query_norm": tensors.norm(query) if query is not None else None,
        "key_norm": tensors.norm(key) if key is not None else None,
        "proj": tensors.linear(attention.proj),
        "mlp_norm": tensors.norm(block.mlp_norm),
        "up": tensors.linear(block.up),
        "down": tensors.linear(block.down),
    }


def of_tokenizer(tokenizer: Tokenizer, tensors: Tensors) -> dict[str, Any]:
    """The way from token grids to frames, layer by layer.

    Raises:
        BadInput: as of `check_tokenizer`.
    """
    check_tokenizer(tokenizer)
    network = tokenizer.network
    assert isinstance(network, Autoencoder)
    decoder: ConvDecoder = network.decoder
    codes = network.quantizer.decode(torch.arange(network.quantizer.vocab_size))
    return {
        "codes": tensors.floats(codes),
        "width": codes.shape[1],
        "layers": [_layer(layer, tensors) for layer in decoder.layers],
        "norm": tensors.norm(decoder.norm_out),
        "out": tensors.convolution(decoder.conv_out),
        "patch": decoder.patch,
    }


def _layer(layer: nn.Module, tensors: Tensors) -> dict[str, Any]:
    """A layer by its kind, which dream.js knows."""
    if isinstance(layer, nn.Conv2d):
        return {"kind": "convolution", "convolution": tensors.convolution(layer)}
    if isinstance(layer, Upsample | ShuffleUp):
        kind = "upsample" if isinstance(layer, Upsample) else "shuffle"
        return {"kind": kind, "convolution": tensors.convolution(layer.conv)}
    if isinstance(layer, SpatialAttention):
        parts = {"qkv": layer.qkv, "proj": layer.proj}
        own = {name: tensors.convolution(part) for name, part in parts.items()}
        return {"kind": "attention", "norm": tensors.norm(layer.norm), **own}
    assert isinstance(layer, ResBlock)
    plain = isinstance(layer.shortcut, nn.Identity)
    return {
        "kind": "residual",
        "norm1": tensors.norm(layer.norm1),
        "conv1": tensors.convolution(layer.conv1),
        "norm2": tensors.norm(layer.norm2),
        "conv2": tensors.convolution(layer.conv2),
        "shortcut": None if plain else tensors.convolution(layer.shortcut),
    }
