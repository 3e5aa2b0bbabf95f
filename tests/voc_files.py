"""Published numbers of Video Occupancy Models, and our network with their weights."""

from pathlib import Path

from published_files import parity
from safetensors.torch import load_file
from torch import Tensor

from drives.tokens.store import TokenSpec
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.dynamics.occupancy.model import Occupancy
from worldmodel.published.commavq_gpt import TRANSPOSED, sources


def voc(shared: Path) -> tuple[Occupancy, dict[str, Tensor], dict[str, Tensor], dict]:
    """The network, inputs and outputs, all weights, and what config.json says."""
    folder, said = parity(shared, "voc_td")
    weights, gpt = load_file(folder / "weights.safetensors"), said["gpt"]
    stack, per_frame = said["frames_stacked"], said["tokens_per_frame"]
    assert stack * per_frame == said["tokens_per_observation"]
    assert (gpt["activation"], gpt["n_positions"]) == ("gelu_new", 4 * per_frame)
    side = int(per_frame**0.5)
    config = OccupancyConfig(
        dim=gpt["n_embd"],
        num_heads=gpt["n_head"],
        num_layers=gpt["n_layer"],
        dropout=gpt["dropout"],
        tie_embeddings=gpt["tied_lm_head"],
        positions="learned",
        qk_norm=False,
        bias=True,
        look_back=0,
        layout=LayoutConfig(separator=False),
        gamma=said["gamma"],
        target_decay=said["target_ema_beta"],
        whole_sequence=True,
    )
    spec = TokenSpec((stack, side, side), gpt["vocab_size"], 50.0, 1, (80, 80), "voc")
    network = Occupancy(config, spec, 0)
    for part, prefix in ((network.online, "gpt."), (network.target, "gpt_target.")):
        state = {name: read(weights, prefix, name, gpt["n_layer"]) for name in part.state_dict()}
        part.load_state_dict(state)
    return network, load_file(folder / "io.safetensors"), weights, said


def frames(network: Occupancy, tokens: Tensor) -> Tensor:
    """Observations [..., token] as steps of our grid [..., height, width]."""
    return tokens.unflatten(-1, (network.layout.height, network.layout.width))


def upstream_name(name: str, layers: int) -> str:
    """Their name of a weight of our GPT."""
    return sources(layers)[name]


def read(tensors: dict[str, Tensor], prefix: str, name: str, layers: int) -> Tensor:
    """A weight, or its gradient, by our name and in our order of axes."""
    theirs = upstream_name(name, layers)
    value = tensors[prefix + theirs]
    return value.T if theirs.endswith(TRANSPOSED) else value
