"""A tiny world model as a checkpoint, and a store of its tokens, to be driven."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from drives.tokens.spec import TokenSpec
from drives.tokens.writer import TokenStoreWriter
from tokenizer.load import Tokenizer
from training.checkpoints.folder import write_checkpoint
from worldmodel.dynamics.config import DynamicsConfig, LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.keyframes.config import KeyframesConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.load import WorldModel, manifest_of

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
NAMES = ("steering", "throttle", "speed_mps")
SIZES = {"dim": 24, "num_layers": 2, "num_heads": 2}


def config_of(kind: str, **layout: object) -> DynamicsConfig:
    """Of a network by its kind: gpt, whole, whole_inner, keyframes or masked."""
    acts = LayoutConfig(**{"actions": "continuous", **layout})
    if kind == "gpt":
        return GPTConfig(**SIZES, context_steps=4, layout=acts, tie_embeddings=False)
    if kind == "masked":
        own = {"num_prompt_frames": 2, "look_back": 0, "factors": (11, 1)}
        return MaskedConfig(**SIZES, context_steps=4, layout=acts, **own)
    if kind == "keyframes":
        own = {"keyframes": 2, "keyframe_every": 2}
        return KeyframesConfig(**SIZES, context_steps=7, layout=acts, **own)
    return WholeFrameConfig(
        **SIZES, context_steps=4, layout=acts, inner_layers=int(kind == "whole_inner")
    )


def make_world_model(kind: str = "gpt", **layout: object) -> WorldModel:
    """No two logits alike, so that dreams depend on everything."""
    torch.manual_seed(0)
    config = config_of(kind, **layout)
    network = build_dynamics(config, SPEC, num_actions=len(NAMES)).eval()
    size = 0.05 if kind == "masked" else 0.5  # its logits grow with the fourth power
    for parameter in network.parameters():
        parameter.data += size * torch.randn_like(parameter) * (parameter.ndim > 1)
    network.requires_grad_(False)
    return WorldModel(network, SPEC, NAMES, Path(kind), manifest_of(config, SPEC, NAMES))


# The layout and the manifest of a model that reads text.
TOLD: dict[str, int] = {"text_tokens": 3, "text_width": 5}
TEXT = {"name": "hashed_words", "num_tokens": 3, "width": 5, "key": "hashed_words-5"}


def write_world(folder: Path, kind: str = "gpt", **layout: object) -> tuple[str, str]:
    """A checkpoint and a store of three drives; their places."""
    model = make_world_model(kind, **layout)
    if "text_tokens" in layout:
        model.manifest["text"] = TEXT
    weights = {f"network.{name}": value for name, value in model.network.state_dict().items()}
    write_checkpoint(folder / kind, weights, model.manifest)
    root, rng = folder / "tokens", np.random.default_rng(0)
    if not root.exists():
        writer = TokenStoreWriter(root, SPEC, NAMES)
        for name, split in (("a", "train"), ("b", "train"), ("c", "test")):
            tokens = rng.integers(0, SPEC.vocab_size, (30, 2, 3)).astype(np.uint16)
            writer.write(name, split, tokens, driven(rng, 30))
    return str(folder / kind), str(root)


def driven(rng: np.random.Generator, num: int) -> np.ndarray:
    """Rows of a car whose speed follows the throttle."""
    rows = rng.uniform((-1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (num, 3))
    for before, row in pairwise(rows):
        row[2] = 0.9 * before[2] + row[1]
    return rows.astype(np.float32)


class TinyVideo(Tokenizer):
    """A grid's frames are its first token, as grey: one frame where a drive begins, else two."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def drive_decoder(self) -> Callable[[torch.Tensor], torch.Tensor]:
        read: list[int] = []

        def stream(grids: torch.Tensor) -> torch.Tensor:
            assert len(grids)  # a real one fails without any
            counts = [2 if read or number else 1 for number in range(len(grids))]
            read.extend(counts)
            greys = grids[:, 0, 0].repeat_interleave(torch.tensor(counts)) / 5.5 - 1
            return greys[:, None, None, None].expand(-1, 3, 16, 24).float()

        return stream
