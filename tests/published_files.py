"""World models in the files in which they are published: real names, wrappers and extra keys."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tokenizer.token_store import TokenSpec
from worldmodel.dynamics.gpt import GPT
from worldmodel.dynamics.gpt_config import GPTConfig
from worldmodel.published.commavq_gpt import TRANSPOSED, sources


def parity(shared: Path, name: str, variant: str = "") -> tuple[Path, dict]:
    """A fixture's folder, and what its config.json says (of a variant)."""
    folder = shared / "parity" / name
    said = json.loads((folder / "config.json").read_text())
    return folder, said["variants"][variant] if variant else said


def gpt2m_files(folder: Path, dim: int = 16, heads: int = 2, layers: int = 1) -> list[Path]:
    """commaVQ's gpt2m, narrower: pytorch_model.bin and config.json, 20 frames of 8 x 16 of 1024."""
    config = GPTConfig(
        dim=dim,
        num_layers=layers,
        num_heads=heads,
        context_steps=20,
        positions="learned",
        qk_norm=False,
        bias=True,
        look_back=0,
        head_ids="all",
    )
    torch.manual_seed(0)
    network = GPT(config, TokenSpec((1, 8, 16), 1024, 20, 1, (128, 256), "commavq"), 0)
    ours, state = network.state_dict(), {}
    for key, name in sources(layers).items():
        state[name] = ours[key].T.contiguous() if name.endswith(TRANSPOSED) else ours[key]
    for layer in range(layers):
        state[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
        state[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    said = {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "layer_norm_epsilon": 1e-5,
        "model_type": "gpt2",
        "n_embd": dim,
        "n_head": heads,
        "n_inner": None,
        "n_layer": layers,
        "n_positions": 2580,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": 1025,
    }
    files = [folder / "pytorch_model.bin", folder / "config.json"]
    torch.save(state, files[0])
    files[1].write_text(json.dumps(said, indent=2))
    return files


def genie_files(shared: Path, folder: Path, variant: str = "a") -> list[Path]:
    """GENIE: model.safetensors and the flat config.json of the hub's mixin."""
    source, said = parity(shared, "genie_stmaskgit", variant)
    files = [folder / "model.safetensors", folder / "config.json"]
    save_file(load_file(source / said["weights"]), files[0], {"format": "pt"})
    files[1].write_text(json.dumps(said["model"], indent=2, sort_keys=True))
    return files
