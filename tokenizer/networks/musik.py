"""MUSIK: tokens of what actions change (multi-step inverse kinematics); no decoder.

From the codes of two frames k frames apart, the network finds the first action among false ones.
The codes need not keep what the driver cannot influence, such as clouds (Lamb et al. 2022, arXiv
2207.08229; with discrete codes in Tomar et al. 2024, video occupancy models).
"""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.networks.autoencoder import ConvEncoder
from tokenizer.networks.base import MeaningOnly
from tokenizer.networks.config import MusikConfig
from tokenizer.quantizers.base import Quantized
from tokenizer.quantizers.kinds import build_quantizer
from training.errors import BadInput
from training.optimization.recompute import Layers


class ActionEnergy(nn.Module):
    """Energy of an action between two states; low where the action explains the change."""

    def __init__(self, state_dim: int, num_actions: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * state_dim + num_actions, hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(
        self,
        first: Float[Tensor, "b d"],
        later: Float[Tensor, "b d"],
        actions: Float[Tensor, "b candidates a"],
    ) -> Float[Tensor, "b candidates"]:
        """Energy of every candidate action."""
        num_actions = actions.shape[-1]
        # The first layer's product with the states is shared by all candidates.
        of_states, of_actions = self.project.weight.split(
            [self.project.in_features - num_actions, num_actions], 1
        )
        states = F.linear(torch.cat([first, later], -1), of_states)
        hidden = states[:, None] + F.linear(actions, of_actions)
        energies = self.out(F.relu(self.norm(hidden.flatten(0, 1))))
        return rearrange(energies, "(b n) 1 -> b n", b=len(first))


class Musik(MeaningOnly):
    """Encoder and quantizer, trained to identify the first action between two frames.

    Raises:
        BadInput: the data has no actions.
    """

    config: MusikConfig

    def __init__(self, config: MusikConfig) -> None:
        super().__init__()
        if not config.num_actions:
            raise BadInput("MUSIK learns from actions, and the data has none; take another recipe")
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        self.encoder = ConvEncoder(config, self.quantizer.dim)
        state_dim = int(config.tokens_per_frame) * self.quantizer.dim
        self.energy = ActionEnergy(state_dim, config.num_actions, config.hidden)
        self.low: Tensor
        self.high: Tensor
        self.register_buffer("low", torch.full((config.num_actions,), torch.inf))
        self.register_buffer("high", torch.full((config.num_actions,), -torch.inf))

    @property
    def trained_layers(self) -> list[Layers]:
        return [self.encoder.layers]

    def frames_used(self, clip_frames: int) -> int:
        return 2

    def forward(self, frames: Float[Tensor, "n 3 h w"]) -> Quantized:
        """Codes [n gh gw dim] and tokens [n gh gw] of frames in [-1, 1]."""
        return self.quantizer(self.latents(frames))

    def latents(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw dim"]:
        return rearrange(self.encoder(frames), "n c h w -> n h w c")

    def logits(
        self,
        first: Float[Tensor, "b gh gw d"],
        later: Float[Tensor, "b gh gw d"],
        actions: Float[Tensor, "b a"],
    ) -> Float[Tensor, "b candidates"]:
        """Negative energy of the true action (candidate 0) and of false ones (InfoNCE)."""
        if self.training:
            self.low.copy_(torch.minimum(self.low, actions.amin(0)))
            self.high.copy_(torch.maximum(self.high, actions.amax(0)))
        span = (self.high - self.low).clamp(min=1e-6)
        true = 2 * (actions - self.low) / span - 1
        false = torch.rand(len(true), self.config.num_negatives, true.shape[-1]).to(true) * 2 - 1
        candidates = torch.cat([true[:, None], false], 1)
        return -self.energy(first.flatten(1), later.flatten(1), candidates)

    def loss(
        self, frames: Float[Tensor, "b t 3 h w"], actions: Float[Tensor, "b t a"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor], Int[Tensor, "..."]]:
        """InfoNCE of the first action plus the quantizer's own terms; accuracy; the tokens.

        The later frame is drawn for every clip. Chance accuracy is 1 / (1 + num_negatives).
        """
        count, length = frames.shape[:2]
        steps = torch.randint(1, length, (count,), device=frames.device)
        later = frames[torch.arange(count, device=frames.device), steps]
        quantized = self(torch.cat([frames[:, 0], later]))
        first, last = quantized.codes.chunk(2)
        logits = self.logits(first, last, actions[:, 0])
        target = torch.zeros(count, dtype=torch.long, device=frames.device)
        accuracy = (logits.argmax(1) == 0).float().mean()
        total = F.cross_entropy(logits, target)
        logs = {"info_nce": total, "accuracy": accuracy, **quantized.losses}
        return total + sum(quantized.losses.values()), logs, quantized.indices
