"""A factorised space-time transformer: frames and tokens of a window in, frames out.

Patches attend to those of their frame, then to those of their place over time (as the U-Net of
GAIA-1 does); the noise level and the spacing of frames shift, scale and gate every block (DiT's
adaLN-Zero, Peebles and Xie 2023, arXiv 2212.09748). Convolutions at full size join the patches, so
that no seams are left between them; where there is noise, they are told its level in the same way.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from drives.tokens.spec import TokenSpec
from training.errors import BadInput
from training.optimization.recompute import maybe_checkpoint
from worldmodel.dynamics.factors import Factors
from worldmodel.video_decoder.motion.drafts import FirstGuess
from worldmodel.video_decoder.networks.config import VideoDecoderConfig
from worldmodel.video_decoder.tasks import DecodingTask

FREQUENCIES = 64  # sines and cosines of a noise level
STD = 0.02  # of embeddings at the start


class LineAttention(nn.Module):
    """Multi-head attention along the next-to-last axis."""

    def __init__(self, dim: int, num_heads: int, causal: bool = False) -> None:
        super().__init__()
        self.num_heads, self.causal = num_heads, causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "n length dim"]) -> Float[Tensor, "n length dim"]:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.proj(out.transpose(1, 2).flatten(2))


class SpaceTimeLayer(nn.Module):
    """Attention within a frame, attention over time, MLP; each shifted, scaled and gated."""

    def __init__(self, dim: int, num_heads: int, causal: bool) -> None:
        super().__init__()
        self.space = LineAttention(dim, num_heads)
        self.time = LineAttention(dim, num_heads, causal)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.modulation = nn.Linear(dim, 9 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Float[Tensor, "b t space dim"],
        condition: Float[Tensor, "b dim"],
        is_video: Bool[Tensor, " b"] | None,
    ) -> Float[Tensor, "b t space dim"]:
        """`is_video` None: no frame reads another one, and the attention over time is left out."""
        parts = self.modulation(condition)[:, None, None].chunk(9, dim=-1)
        batch, steps = x.shape[:2]
        shift, scale, gate = parts[:3]
        within = self.space(_modulated(x, shift, scale).flatten(0, 1))
        x = x + gate * within.unflatten(0, (batch, steps))
        if is_video is not None:
            shift, scale, gate = parts[3:6]
            moved = rearrange(_modulated(x, shift, scale), "b t s d -> (b s) t d")
            over = rearrange(self.time(moved), "(b s) t d -> b t s d", b=batch)
            x = x + gate * is_video[:, None, None, None] * over
        shift, scale, gate = parts[6:]
        return x + gate * self.mlp(_modulated(x, shift, scale))


class PixelLayer(nn.Module):
    """A residual convolution at full size, shifted and scaled by the noise level.

    Args:
        dilation: pixels from one pixel that it reads to the next.
    """

    def __init__(self, channels: int, dim: int, dilation: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.modulation = nn.Linear(dim, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Float[Tensor, "n c h w"], condition: Float[Tensor, "b dim"]
    ) -> Float[Tensor, "n c h w"]:
        """`x` holds the frames of each clip one after another."""
        told = self.modulation(condition).repeat_interleave(len(x) // len(condition), dim=0)
        shift, scale = told[..., None, None].chunk(2, dim=1)
        return x + self.mix(F.gelu(self.read(x) * (1 + scale) + shift))


class SpaceTimeNet(nn.Module):
    """The transformer of all kinds of video decoders.

    Args:
        timed: whether it is told a noise level.
        outputs: channels of what it makes of a frame.

    Attributes:
        keeps_features: whether `features` are what the last layer read, for the adaptive weight of
            a discriminator.

    Raises:
        BadInput: a patch that divides neither frame nor grid, or tokens that are no image's.
    """

    recompute = False
    keeps_features = False
    features: Tensor

    def __init__(
        self, config: VideoDecoderConfig, spec: TokenSpec, timed: bool, outputs: int = 3
    ) -> None:
        super().__init__()
        self.config, self.spec, dim = config, spec, config.dim
        self.rows, self.columns = patches_of(config, spec)
        drafts = config.draft + bool(config.reach) * (1 if config.causal else 2)
        channels = 4 + 3 * drafts  # pixels, whether they are given, what `FirstGuess` shows
        self.factors = Factors(spec.factors, spec.vocab_size)
        self.tables = nn.ModuleList(nn.Embedding(size, dim) for size in self.factors.sizes)
        self.no_token = nn.Parameter(torch.randn(dim) * STD)
        self.patches = nn.Conv2d(channels, dim, config.patch, stride=config.patch)
        self.place = nn.Parameter(torch.randn(self.rows * self.columns, dim) * STD)
        self.when = nn.Parameter(torch.randn(config.window_frames, dim) * STD)
        self.rate = nn.Embedding(len(config.spacings), dim)
        self.level: nn.Module | None = None
        if timed:
            self.level = nn.Sequential(
                nn.Linear(2 * FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim)
            )
        self.blocks = nn.ModuleList(
            SpaceTimeLayer(dim, config.num_heads, config.causal) for _ in range(config.num_layers)
        )
        self.last = nn.Linear(dim, 2 * dim)
        self.to_detail = nn.Linear(dim, config.detail * config.patch**2)
        self.join = nn.Sequential(
            nn.Conv2d(config.detail + channels, config.detail, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(config.detail, outputs, 3, padding=1),
        )
        self.pixels = nn.ModuleList(
            PixelLayer(config.detail, dim, 2**number) for number in range(config.pixel_layers)
        )
        for table in (*self.tables, self.rate):
            nn.init.normal_(table.weight, std=STD)
        for zero in (*self.last.parameters(), *self.join[-1].parameters()):
            nn.init.zeros_(zero)

    def forward(
        self,
        x: Float[Tensor, "b t 3 h w"],
        task: DecodingTask,
        draft: FirstGuess | None = None,
        level: Float[Tensor, " b"] | None = None,
        alone: bool = False,
    ) -> Float[Tensor, "b t out h w"]:
        """What the network makes of frames or noise.

        Args:
            x: given frames stand in it as they are.
            draft: where the network reads one.
            level: of the noise, 0 (none) to 1.
            alone: every frame alone, whatever the task says; leaves the attention over time out.
        """
        batch, steps = x.shape[:2]
        given = task.is_given[:, :, None, None, None].to(x).expand(-1, -1, 1, *x.shape[-2:])
        planes = [x, given]
        if self.config.draft:
            assert draft is not None
            planes += self.planes(draft, None if alone else task.is_video)
        pixels = torch.cat(planes, dim=2).flatten(0, 1)
        cells = self.patches(pixels).flatten(2).transpose(1, 2).unflatten(0, (batch, steps))
        cells = cells + self._embedded(task) + self.place + self.when[:steps, None]
        condition = self.rate(task.rate)
        if self.level is not None:
            assert level is not None
            condition = condition + self.level(sines(level))
        condition = F.silu(condition)
        is_video = None if alone else task.is_video
        for block in self.blocks:
            cells = maybe_checkpoint(block, cells, condition, is_video, recompute=self.recompute)
        shift, scale = self.last(condition)[:, None, None].chunk(2, dim=-1)
        detail = rearrange(
            self.to_detail(_modulated(cells, shift, scale)),
            "b t (r c) (d y x) -> (b t) d (r y) (c x)",
            r=self.rows,
            y=self.config.patch,
            x=self.config.patch,
        )
        first, activation, last = self.join
        joined = activation(first(torch.cat([detail, pixels.to(detail)], dim=1)))
        for layer in self.pixels:
            joined = maybe_checkpoint(layer, joined, condition, recompute=self.recompute)
        if self.keeps_features:
            self.features = joined.detach()
        return last(joined).unflatten(0, (batch, steps))

    def planes(
        self, draft: FirstGuess, is_video: Bool[Tensor, " b"] | None
    ) -> list[Float[Tensor, "b t 3 h w"]]:
        """What is read of a draft; `is_video` None: every frame alone."""
        return draft.planes(is_video)

    def _embedded(self, task: DecodingTask) -> Float[Tensor, "b t space dim"]:
        """The vector of each patch's token: the sum of those of the token's factors."""
        digits = self.factors.split(task.tokens).unbind(-1)
        pairs = zip(self.tables, digits, strict=True)
        vectors = torch.stack([table(digit) for table, digit in pairs]).sum(0)
        vectors = torch.where(task.has_token[..., None], vectors, self.no_token.to(vectors))
        rows, columns = self.spec.grid[1:]
        tall = vectors.repeat_interleave(self.rows // rows, dim=2)
        return tall.repeat_interleave(self.columns // columns, dim=3).flatten(2, 3)


def patches_of(config: VideoDecoderConfig, spec: TokenSpec) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        BadInput: see `SpaceTimeNet`.
    """
    if spec.frames_per_step != 1 or spec.grid[0] != 1:
        raise BadInput(
            f"data.tokenizer: its step stands for {spec.frames_per_step} frames; a video decoder "
            "reads a grid per frame, so give a tokenizer of images"
        )
    counts = []
    for side, cells in zip(spec.image_size, spec.grid[1:], strict=True):
        if side % config.patch or (side // config.patch) % cells:
            raise BadInput(
                f"model.network.patch={config.patch}: frames of {spec.image_size} with a grid of "
                f"{spec.grid[1:]} have cells of {side // cells} pixels; give a divisor of that"
            )
        if side % 2**config.halvings or side // 2**config.halvings < 8:
            raise BadInput(
                f"model.network.halvings={config.halvings}: frames of {spec.image_size} cannot be "
                "halved so often; give fewer, so that 8 pixels are left on a side"
            )
        counts.append(side // config.patch)
    return counts[0], counts[1]


def sines(level: Float[Tensor, " b"]) -> Float[Tensor, "b wave"]:
    """Sines and cosines of noise levels, from one wave over [0, 1] to a thousand."""
    rates = torch.exp(torch.linspace(0, math.log(1000), FREQUENCIES, device=level.device))
    angle = level.float()[:, None] * rates * math.pi
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
