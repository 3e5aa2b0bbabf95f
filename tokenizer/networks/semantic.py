"""Semantic tokens: quantised features of a frozen vision transformer; no decoder to pixels.

The loss is the cosine between the features and those recovered by a small decoder. With a trained
encoder this is the VQ-KD tokenizer of BEiT v2 (Peng et al. 2022, arXiv 2208.06366, section 3.1),
which the video occupancy models use (Tomar et al. 2024).
"""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer.networks.base import MeaningOnly
from tokenizer.networks.config import SemanticConfig
from tokenizer.networks.vision_transformer import VisionTransformer, ViTBlock, load_vit
from tokenizer.quantizers.base import Quantized
from tokenizer.quantizers.kinds import build_quantizer
from training.errors import BadInput
from training.optimization.recompute import Layers


class SemanticTokenizer(MeaningOnly):
    """Frames -> codes -> the features of a frozen transformer, the teacher."""

    config: SemanticConfig
    mean: Tensor
    std: Tensor

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        dim, code_dim, (_, *grid) = config.dim, self.quantizer.dim, config.grid
        self.teacher = VisionTransformer(
            (grid[0], grid[1]),
            config.patch,
            dim,
            config.depth,
            config.heads,
            config.registers,
            config.layer_scale,
        ).requires_grad_(False)
        self.encoder: VisionTransformer | None = None
        if config.encoder_depth:
            self.encoder = VisionTransformer(
                (grid[0], grid[1]), config.patch, dim, config.encoder_depth, config.heads
            )
        self.to_codes = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, code_dim))
        self.from_codes = nn.Linear(code_dim, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(1, grid[0] * grid[1], dim))
        self.layers = Layers(*(ViTBlock(dim, config.heads) for _ in range(config.decoder_depth)))
        self.head = nn.Linear(dim, dim)
        for name, values in (("mean", config.mean), ("std", config.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def trained_layers(self) -> list[Layers]:
        return [self.layers] if self.encoder is None else [self.encoder.blocks, self.layers]

    def load_weights(self, weights: str | None) -> None:
        """Load the transformer's weights: a file, "timm:NAME", or "random" (the floor).

        Raises:
            BadInput: no weights are named, or as `load_vit`.
        """
        if weights is None:
            raise BadInput(
                "model.weights: a frozen transformer needs weights; give a file, timm:NAME, or "
                "random for the floor that they have to beat"
            )
        if weights != "random":
            load_vit(self.teacher, weights)

    def frames_used(self, clip_frames: int) -> int:
        return clip_frames

    def features(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw dim"]:
        """Features of frames in [-1, 1]."""
        with torch.no_grad():
            return self.teacher(self.normalised(frames))

    def latents(
        self,
        frames: Float[Tensor, "n 3 h w"],
        features: Float[Tensor, "n gh gw dim"] | None = None,
    ) -> Float[Tensor, "n gh gw d"]:
        """Latents of frames, or of their features where these are given."""
        if self.encoder is not None:
            return self.to_codes(self.encoder(self.normalised(frames)))
        return self.to_codes(self.features(frames) if features is None else features)

    def normalised(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Frames in [-1, 1], normalised for the teacher's weights."""
        return ((frames + 1) / 2 - self.mean) / self.std

    def recover(self, codes: Float[Tensor, "n gh gw d"]) -> Float[Tensor, "n gh gw dim"]:
        """Features predicted from the codes."""
        tokens = rearrange(self.from_codes(codes), "n gh gw d -> n (gh gw) d") + self.positions
        out = self.head(self.layers(tokens))
        return rearrange(out, "n (gh gw) d -> n gh gw d", gh=codes.shape[1])

    def forward(
        self, frames: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n gh gw"], Quantized]:
        """Cosine between features and recovered features, by position; and the codes."""
        features = self.features(frames)
        quantized = self.quantizer(self.latents(frames, features))
        return F.cosine_similarity(self.recover(quantized.codes), features, dim=-1), quantized

    def loss(
        self, frames: Float[Tensor, "b t 3 h w"], actions: Float[Tensor, "b t a"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor], Int[Tensor, "..."]]:
        """1 - cosine plus the quantizer's own terms; the cosine; the tokens."""
        cosine, quantized = self(frames.flatten(0, 1))
        logs = {"cosine": cosine.mean(), **quantized.losses}
        total = 1 - cosine.mean() + sum(quantized.losses.values())
        return total, logs, quantized.indices
