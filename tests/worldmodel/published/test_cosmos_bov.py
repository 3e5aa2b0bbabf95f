"""Cosmos 5B and 13B: <bov> before the video, held to a plain forward pass written for the test.

That pass is itself held to upstream's numbers on the fixtures, which have no <bov>. With it, the
logits were compared with those of upstream's own code on three such networks: 3.7e-6 at most.
"""

import math

import pytest
import torch
from published_files import cosmos_files, parity
from safetensors.torch import load_file
from torch import Tensor

from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.text import TextContext
from worldmodel.published import open_published


def rms(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def grid_of(said: dict, lead: int) -> Tensor:
    """(time, row, column) of every token, `lead` zero rows before them."""
    t, h, w = said["video_latent_shape"]
    places = torch.cartesian_prod(*(torch.arange(n) for n in (t, h, w)))
    return torch.cat([torch.zeros(lead, 3, dtype=torch.long), places]).double()


def angles(said: dict, head_dim: int, lead: int) -> Tensor:
    spatial = head_dim // 6 * 2
    parts = []
    for axis, width in enumerate((head_dim - 2 * spatial, spatial, spatial)):
        rate = said["rope_theta"] ** (-torch.arange(0, width, 2).double() / width)
        if said["apply_yarn"]:
            turn = 2 * math.pi / said["original_latent_shape"][min(axis, 1)]
            low, high = turn * said["yarn_beta_slow"], turn * said["yarn_beta_fast"]
            kept = ((rate - low) / (high - low)).clamp(0, 1)
            rate = rate * ((1 - kept) / said["yarn_scale"] + kept)
        parts.append(grid_of(said, lead)[:, axis, None] * rate)
    half = torch.cat(parts, 1)
    return torch.cat([half, half], 1).float()


def absolute(said: dict, lead: int) -> Tensor:
    """Sines and cosines of every token's place; nothing for the lead."""
    dim = said["dim"]
    spatial, parts = dim // 6 * 2, []
    for axis, width in enumerate((dim - 2 * spatial, spatial, spatial)):
        rate = 10_000.0 ** (-torch.arange(width // 2).double() / (width / 2))
        angle = grid_of(said, 0)[:, axis, None] * rate
        parts += [angle.sin(), angle.cos()]
    rows = torch.cat(parts, 1).bfloat16().float()
    return torch.cat([torch.zeros(lead, dim), rows])


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], 1) for part in (k, v))
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def forward(state: dict, said: dict, ids: Tensor, lead: int, context=None, context_mask=None):
    heads, kv_heads = said["n_heads"], said["n_kv_heads"]
    head_dim = said["head_dim"] or said["dim"] // heads
    angle = angles(said, head_dim, lead)[: ids.shape[1]]
    causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()

    def split(x: Tensor, count: int) -> Tensor:
        return x.unflatten(-1, (count, head_dim)).transpose(1, 2)

    def turned(x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()

    def project(prefix: str, read: Tensor, heard: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = split(read @ state[f"{prefix}.wq.weight"].T, heads)
        k, v = (split(heard @ state[f"{prefix}.w{x}.weight"].T, kv_heads) for x in "kv")
        return rms(q, state[f"{prefix}.q_norm.weight"]), rms(k, state[f"{prefix}.k_norm.weight"]), v

    x, eps = state["tok_embeddings.weight"][ids], said["norm_eps"]
    for layer in range(said["n_layers"]):
        at = f"layers.{layer}"
        if said["apply_abs_pos_emb"]:
            x = x + absolute(said, lead)[: ids.shape[1]]
        y = rms(x, state[f"{at}.attention_norm.weight"], eps)
        q, k, v = project(f"{at}.attention", y, y)
        x = x + attend(turned(q), turned(k), v, causal) @ state[f"{at}.attention.wo.weight"].T
        if f"{at}.cross_attention.wq.weight" in state:
            y = rms(x, state[f"{at}.cross_attention_norm.weight"], eps)
            q, k, v = project(f"{at}.cross_attention", y, context)
            mixed = attend(q, k, v, context_mask)
            x = x + mixed @ state[f"{at}.cross_attention.wo.weight"].T
        y = rms(x, state[f"{at}.ffn_norm.weight"], eps)
        w1, w2, w3 = (state[f"{at}.feed_forward.w{n}.weight"].T for n in (1, 2, 3))
        x = x + (torch.nn.functional.silu(y @ w1) * (y @ w3)) @ w2
    return rms(x, state["norm.weight"], eps) @ state["output.weight"].T


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


@pytest.fixture(params=["a", "b"])
def variant(request):
    return request.param


@pytest.fixture
def published(shared, variant, tmp_path):
    """(model, upstream's weights with <bov>, settings, inputs of the fixture)."""
    files = cosmos_files(shared, tmp_path, variant)
    folder, said = parity(shared, "cosmos_ar", variant)
    state = {k.removeprefix("model."): v for k, v in torch.load(files[0])["model"].items()}
    io = load_file(folder / said["io"])
    return open_published("cosmos_ar", files), state, said["model"], io


def said_of(io: dict) -> tuple[dict, TextContext | None]:
    """The text as the plain pass and as our network read it."""
    if "context" not in io:
        return {}, None
    states = io["context"] * io["context_mask"][:, 0, 0, :, None]
    captions = TextContext(states, torch.arange(len(states))[:, None])
    return {key: io[key] for key in ("context", "context_mask")}, captions


@torch.no_grad()
def test_the_plain_pass_is_upstreams(shared, variant):
    folder, said = parity(shared, "cosmos_ar", variant)
    state, io = load_file(folder / said["weights"]), load_file(folder / said["io"])
    close(forward(state, said["model"], io["tokens"], 0, **said_of(io)[0]), io["logits"])


@torch.no_grad()
def test_bov_is_read_before_the_video(published):
    model, state, said, io = published
    network, vocab = model.network, said["vocab_size"]
    text, captions = said_of(io)
    bov = torch.full((len(io["tokens"]), 1), vocab)
    expected = forward(state, said, torch.cat([bov, io["tokens"]], 1), 1, **text)
    frames = io["tokens"].view(-1, *said["video_latent_shape"])
    ids = network.layout.sequence_ids(frames)
    assert torch.equal(ids, torch.cat([bov, io["tokens"]], 1))
    close(network.sequence_logits(ids, captions), expected)
    close(network(frames, captions=captions).flatten(1, 2), expected[:, :-1])
    nats = torch.nn.functional.cross_entropy(expected[:, :-1].mT, io["tokens"], reduction="none")
    close(network.score(frames, captions=captions).nats.flatten(1), nats)
    rows = len(state["tok_embeddings.weight"])
    assert model.spec.vocab_size == vocab
    padding = f"tok_embeddings.weight[{vocab + 1}:{rows}]"
    assert model.manifest["published"]["left_out"] == [padding]


@torch.no_grad()
def test_bov_is_read_by_every_decoder(published):
    """One after the other, by guesses, in the next window, and with a caption that is repeated."""
    model, _, _, io = published
    network, steps = model.network, model.network.config.context_steps
    captions = said_of(io)[1]
    prompt = io["tokens"].view(-1, steps, *model.spec.grid[1:])[:, :1]
    greedy = Sampling(greedy=True)

    def follow(horizon: int, said=captions, **options) -> Tensor:
        return rollout(network, prompt, None, horizon, greedy, captions=said, **options)[:, 0]

    made = follow(steps + 1, slide_steps=1)
    for window in range(1, 3):
        seen = torch.cat([prompt, made], 1)[:, window : window + steps]
        best = network(seen, captions=captions)[:, -1].argmax(-1)
        assert torch.equal(best, seen[:, -1].flatten(1))
    assert torch.equal(follow(steps - 1, method="speculative"), made[:, : steps - 1])
    if captions is not None:
        every = TextContext(captions.embeddings, captions.index.repeat(1, steps))
        assert torch.equal(follow(steps - 1, every), made[:, : steps - 1])
    with pytest.raises(BadInput, match="window=roll"):
        follow(1, window="roll")
