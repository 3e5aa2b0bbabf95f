"""Opens a trained tokenizer: a run, a checkpoint, an export, or one that ships with the package."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from tokenizer.quantizers import describe, from_description
from tokenizer.token_store import TokenSpec
from training.checkpoints import (
    find_checkpoint,
    read_manifest,
    read_weights,
    write_checkpoint,
)
from training.errors import BadInput

PRETRAINED = Path(__file__).parent / "pretrained"
KIND = "tokenizer"


class Tokenizer(nn.Module):
    """A trained autoencoder in eval mode, with its identity.

    Attributes:
        hash: sha256 of the weights file: what token stores and world models refer to.
        manifest: what the checkpoint says about itself (config, figures, data).
    """

    def __init__(self, autoencoder: Autoencoder, hash: str, manifest: dict[str, Any]) -> None:
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.hash, self.manifest = hash, manifest

    def spec(self, fps: float) -> TokenSpec:
        """What its tokens mean at a frame rate."""
        config, quantizer = self.autoencoder.config, self.autoencoder.quantizer
        height, width = config.image_size
        return TokenSpec(
            grid=config.grid,
            vocab_size=quantizer.vocab_size,
            fps=fps,
            frames_per_step=1,
            image_size=(height, width),
            tokenizer=self.hash,
            factors=quantizer.factors,
            bit_order=quantizer.bit_order,
        )

    @property
    def device(self) -> torch.device:
        return next(self.autoencoder.parameters()).device

    def encode(self, frames: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n gh gw"]:
        return self.autoencoder.encode(frames)

    def decode(self, tokens: Int[Tensor, "n gh gw"]) -> Float[Tensor, "n 3 h w"]:
        return self.autoencoder.decode(tokens)


def manifest_of(config: AutoencoderConfig) -> dict[str, Any]:
    """What a checkpoint must say for `load_tokenizer` to rebuild the network."""
    plain = {k: list(v) if isinstance(v, list | tuple) else v for k, v in asdict(config).items()}
    plain["quantizer"] = describe(config.quantizer)
    return {"kind": KIND, "network": {"name": "autoencoder", **plain}}


def load_tokenizer(name: str | Path) -> Tokenizer:
    """Open the tokenizer called `name`: a shipped one, a run folder, or a checkpoint folder.

    The averaged (EMA) weights are taken. Nothing is unpickled.

    Raises:
        BadInput: no such tokenizer, a damaged checkpoint, or one of another kind.
    """
    shipped = sorted(p.name for p in PRETRAINED.glob("*/") if (p / "manifest.json").exists())
    path = PRETRAINED / str(name) if str(name) in shipped else Path(name)
    if not path.exists():
        raise BadInput(
            f"tokenizer={name}: no such run or checkpoint; shipped: {', '.join(shipped) or 'none'}"
        )
    path = find_checkpoint(path)
    manifest = read_manifest(path)
    if manifest.get("kind") != KIND:
        raise BadInput(f"{path}: is a {manifest.get('kind')} checkpoint, a tokenizer is needed")
    network = dict(manifest["network"])
    if network.pop("name") != "autoencoder":
        raise BadInput(f"{path}: holds an unknown network {manifest['network']['name']!r}")
    if "levels" in network:  # written when FSQ was the only quantizer
        network["quantizer"] = {"name": "fsq", "levels": network.pop("levels")}
    quantizer = from_description(network.pop("quantizer"))
    autoencoder = Autoencoder(AutoencoderConfig(**network, quantizer=quantizer))
    weights = {
        key.removeprefix("ema.module."): value.float()
        for key, value in read_weights(path).items()
        if key.startswith("ema.module.")
    }
    try:
        autoencoder.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput(f"{path}: the weights do not fit its manifest ({error})") from error
    return Tokenizer(autoencoder, manifest["files"]["weights.safetensors"], manifest)


def export_tokenizer(
    checkpoint: Path, out: Path, dtype: torch.dtype = torch.float16, **facts: Any
) -> None:
    """Write the averaged weights alone, in half precision, with figures in the manifest."""
    manifest = {k: v for k, v in read_manifest(checkpoint).items() if k != "files"}
    weights = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in read_weights(checkpoint).items()
        if key.startswith("ema.module.")
    }
    write_checkpoint(out, weights, {**manifest, **facts})
