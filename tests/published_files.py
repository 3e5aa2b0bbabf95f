"""World models in the files in which they are published: real names, wrappers and extra keys."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from drives.tokens.store import TokenSpec
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.gpt.model import GPT
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
        tie_embeddings=False,
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


def cosmos_files(shared: Path, folder: Path, variant: str = "b", bov: bool = True) -> list[Path]:
    """Cosmos: model.pt, under "model", "model." before every name, and TransformerEngine's state.

    With `bov` as 5B and 13B: rows of the embedding after the head's, up to a multiple of 64, of
    which the first is <bov>.
    """
    source, said = parity(shared, "cosmos_ar", variant)
    state = load_file(source / said["weights"])
    if bov:
        rows = state["tok_embeddings.weight"]
        count = -(-(len(rows) + 1) // 64) * 64 - len(rows)
        more = torch.randn(count, rows.shape[1], generator=torch.Generator().manual_seed(5))
        state["tok_embeddings.weight"] = torch.cat([rows, more])
    state = {f"model.{key}": tensor for key, tensor in state.items()}
    state["model.layers.0.attention._extra_state"] = torch.zeros(1)
    files = [folder / "model.pt", folder / "config.json"]
    torch.save({"model": state}, files[0])
    files[1].write_text(json.dumps(said["model"]))
    return files


class NextTokenPredictor(L.LightningModule):
    """What VaViM's checkpoints were saved from: its arguments are configs, and are kept."""

    def __init__(self, network: DictConfig, optimizer_conf: DictConfig, **_: Any) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)

    tensors: dict[str, torch.Tensor]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = self.tensors


def vavim_files(shared: Path, folder: Path, **changes: Any) -> list[Path]:
    """VaViM: a checkpoint by Lightning, whose settings are OmegaConf's objects, and base shapes.

    Args:
        changes: of the network's arguments.
    """
    source, _ = parity(shared, "vam_mupgpt2")
    published = torch.load(source / "weights.pt")
    network = published["hyper_parameters"]["network"]
    values = {"sequence_length": network["nb_timesteps"], "model": {"network": network}}
    cfg = OmegaConf.create(values)
    cfg.model.network.nb_timesteps = "${sequence_length}"
    cfg.model.network.update(changes)
    cfg.model.optimizer_conf = {"lr": 0.0041, "betas": [0.9, 0.95]}
    module = NextTokenPredictor(
        cfg.model.network, cfg.model.optimizer_conf, mup_base_shapes="./mup_shapes/base.bsh"
    )
    module.tensors = published["state_dict"]
    trainer = L.Trainer(
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[L.pytorch.callbacks.ModelCheckpoint(folder)],
    )
    trainer.strategy.connect(module)
    files = [folder / "width_32_fused.pt", folder / "base.bsh"]
    trainer.save_checkpoint(files[0])
    files[1].write_bytes((source / "mup_base_shapes.bsh").read_bytes())
    return files
