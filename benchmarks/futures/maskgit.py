"""Generating frames with the architecture of GENIE_35M at its full window of 16 frames.

Peer: the same weights in plain PyTorch, as upstream runs them: every MaskGIT step of every frame
reads the whole window. Weights are random; both must generate the same tokens, or there is no row.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import Row, interleaved, seconds
from drives.tokens.store import TokenSpec
from worldmodel.decoding import Sampling
from worldmodel.decoding.maskgit import MaskGIT
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.masked.model import Masked

LAYERS, PROMPT, FRAMES, STEPS, REPEATS = 32, 8, 2, 2, 2
CLIPS = 4  # whose prompts are read together
SPEC = TokenSpec((1, 16, 16), 2**18, 2.0, 1, (256, 256), "random")


def rows() -> Iterator[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    config = MaskedConfig(256, LAYERS, 8, context_steps=16, factors=(512, 512), look_back=0)
    model = build_dynamics(config, SPEC, 0).eval().requires_grad_(False).to(device)
    model.position.normal_()
    prompt = torch.randint(0, 2**18, (1, PROMPT, 16, 16), device=device)
    decoder = MaskGIT(model, Sampling(greedy=True), STEPS, order="confidence")

    def ours() -> Tensor:
        decoder.start(prompt)
        frames = torch.stack([decoder.next_frame() for _ in range(FRAMES)], dim=1)
        return frames.cpu()

    def peer() -> Tensor:
        return generate(model, prompt).cpu()

    share = (ours() == peer()).float().mean().item()
    if share < 0.99:  # a rounding error may change a token and all that depend on it
        raise AssertionError(f"only {share:.1%} of the tokens are equal")

    def frames_alone() -> float:
        decoder.start(prompt)
        return seconds(lambda: [decoder.next_frame() for _ in range(FRAMES)])

    contestants: dict[str, Callable[[], float]] = {
        "ours": lambda: seconds(ours),
        "frames": frames_alone,
        "peer": lambda: seconds(peer),
    }
    best = interleaved(contestants, REPEATS)
    for name, said, goal in (
        ("ours", f"{FRAMES} frames after {PROMPT}", 1.5),
        ("frames", f"{FRAMES} frames after {PROMPT} that are read already", 10.9),
    ):
        yield Row(
            f"GENIE_35M's shape: {said}, {STEPS} MaskGIT steps each",
            f"{best[name] / FRAMES:.2f} s per frame",
            f"plain PyTorch, whole windows, {best['peer'] / FRAMES:.2f} s",
            best["peer"] / best[name],
            goal=goal,
        )
    clips = torch.randint(0, 2**18, (CLIPS, PROMPT, 16, 16), device=device)
    contestants = {
        "together": lambda: seconds(lambda: decoder.start(clips)),
        "alone": lambda: seconds(lambda: [decoder.start(clip[None]) for clip in clips]),
        "plain": lambda: CLIPS * seconds(lambda: read_plainly(model, prompt)),
    }
    best = interleaved(contestants, REPEATS)
    for peer, said in (("plain", "plain PyTorch, whole windows"), ("alone", "one clip at a time")):
        yield Row(
            f"GENIE_35M's shape: reading the prompts of {CLIPS} clips, {PROMPT} frames each",
            f"{best['together']:.2f} s",
            f"{said}, {best[peer]:.2f} s",
            best[peer] / best["together"],
        )


def read_plainly(model: Masked, prompt: Tensor) -> Tensor:
    """What upstream does of a prompt in every step: the whole window, masked after the prompt."""
    limit = model.config.context_steps
    tokens = F.pad(prompt.flatten(2), (0, 0, 0, limit - PROMPT))
    masked = torch.zeros_like(tokens, dtype=torch.bool)
    masked[:, PROMPT:] = True
    with torch.inference_mode():
        return plain_logits(model, tokens, masked)


@torch.inference_mode()
def generate(model: Masked, prompt: Tensor) -> Tensor:
    """Greedy frames after the prompt, most confident tokens first; unknown tokens are masked."""
    space = SPEC.tokens_per_step
    limit = model.config.context_steps
    tokens = F.pad(prompt.flatten(2), (0, 0, 0, limit - PROMPT))
    masked = torch.zeros_like(tokens, dtype=torch.bool)
    masked[:, PROMPT:] = True
    for frame in range(PROMPT, PROMPT + FRAMES):
        for step in range(STEPS):
            logits = plain_logits(model, tokens, masked)[:, frame].unflatten(-1, (2, 512))
            chance, value = logits.softmax(-1).max(-1)
            drawn = value[..., 0] + 512 * value[..., 1]
            hidden = masked[:, frame].clone()
            tokens[:, frame] = torch.where(hidden, drawn, tokens[:, frame])
            left = math.ceil(math.cos((step + 1) / STEPS * math.pi / 2) * space)
            left = left if step < STEPS - 1 else 0
            sure = chance.prod(-1).masked_fill(~hidden, torch.inf)
            masked[:, frame] = False
            masked[:, frame].scatter_(1, sure.argsort(1)[:, :left], True)
    return tokens[:, PROMPT : PROMPT + FRAMES].unflatten(2, (16, 16))


def plain_logits(model: Masked, tokens: Tensor, masked: Tensor) -> Tensor:
    """The whole window through plain layers."""
    low, high = (embed.weight for embed in model.embeds)
    x = low[tokens % 512] + high[tokens // 512]
    x = torch.where(masked[..., None], model.mask_token, x) + model.position
    for block in model.blocks:
        x = x + attend(block.space, block.space_norm(x), causal=False)
        x = x + attend(block.time, x.transpose(1, 2), causal=True).transpose(1, 2)
        x = x + block.down(F.gelu(block.up(block.mlp_norm(x))))
    return model.head(x)


def attend(attention: torch.nn.Module, x: Tensor, causal: bool) -> Tensor:
    batch, rows, length, dim = x.shape
    query, key, value = (
        part.view(batch * rows, length, 8, dim // 8).transpose(1, 2)
        for part in attention.qkv(x).chunk(3, dim=-1)
    )
    out = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    return attention.proj(out.transpose(1, 2).reshape(batch, rows, length, dim))
