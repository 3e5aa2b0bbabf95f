"""Published GPTs give upstream's numbers: logits within 2e-4, greedy tokens exactly."""

import json
import math

import pytest
import torch
from published_files import parity
from safetensors.torch import load_file
from torch import Tensor

from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.dynamics.text import TextContext
from worldmodel.published import open_published


def close(ours: Tensor, theirs: Tensor, atol: float = 2e-4) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def greedy(network: GPT, prompt: Tensor, num_new: int) -> Tensor:
    """Unconstrained argmax over all ids, without a cache."""
    ids = prompt
    for _ in range(num_new):
        ids = torch.cat([ids, network.sequence_logits(ids)[:, -1:].argmax(-1)], dim=1)
    return ids[:, prompt.shape[1] :]


@torch.no_grad()
def test_commavq_gpt(shared):
    folder, said = parity(shared, "commavq_gpt")
    io, bos, width = load_file(folder / "io.safetensors"), said["bos_token"], frame_width(said)
    model = open_published("commavq_gpt", [folder / "weights.pt", folder / "config.json"])
    network = model.network
    close(network.sequence_logits(io["tokens"]), io["logits"])
    nats = network.sequence_logits(io["tokens"])[:, :-1].log_softmax(-1)
    close(-nats.gather(-1, io["tokens"][:, 1:, None])[..., 0], io["nll"])
    assert torch.equal(greedy(network, io["prompt"], said["greedy_new_tokens"]), io["greedy"])
    # Through our layout: the separator is BOS, and BOS cannot come where a frame's token stands.
    shape = (-1, width)
    frames = io["tokens"].unflatten(1, shape)[:, :, 1:].unflatten(2, model.spec.grid[1:])
    ours = network(frames)
    close(ours, io["logits"].unflatten(1, shape)[:, :, :-1, :bos])
    assert torch.equal(network.layout.sequence_ids(frames), io["tokens"])
    scores = network.score(frames)
    nll = torch.nn.functional.pad(io["nll"], (1, 0)).unflatten(1, shape)[:, :, 1:]
    probability = io["logits"].unflatten(1, shape)[:, :, :-1].softmax(-1)[..., bos]
    close(scores.nats, nll + torch.log1p(-probability))


def frame_width(said: dict) -> int:
    """Positions of a frame, BOS included."""
    return said["model"]["tokens_per_frame"]


@torch.no_grad()
def test_commavq_gpt_decodes_as_it_scores(shared):
    folder, said = parity(shared, "commavq_gpt")
    width = frame_width(said)
    rows = next(n for n in range(math.isqrt(width - 1), 0, -1) if not (width - 1) % n)
    grid = (rows, (width - 1) // rows)
    model = open_published("commavq_gpt", [folder / "weights.pt"], grid=grid)
    prompt = load_file(folder / "io.safetensors")["prompt"]
    frames = prompt.unflatten(1, (-1, width))[:, :, 1:].unflatten(2, grid)
    time = frames.shape[1]
    horizon = network_steps(model) - time
    futures = rollout(model.network, frames, None, horizon, Sampling(greedy=True))[:, 0]
    logits = model.network(torch.cat([frames, futures], dim=1))
    assert torch.equal(logits[:, time:].argmax(-1), futures.flatten(2))


def network_steps(model) -> int:
    return model.network.config.context_steps


@torch.no_grad()
@pytest.mark.parametrize("variant", ["a", "b"])
def test_cosmos_ar(shared, variant, tmp_path):
    folder, said = parity(shared, "cosmos_ar", variant)
    io = load_file(folder / said["io"])
    (tmp_path / "config.json").write_text(json.dumps(said["model"]))
    files = [folder / said["weights"], tmp_path / "config.json"]
    model = open_published("cosmos_ar", files)
    network, config = model.network, model.network.config
    captions = None
    if "context" in io:  # one text per clip, said at every step
        states = io["context"] * io["context_mask"][:, 0, 0, :, None]
        captions = TextContext(states, torch.arange(len(states))[:, None])
    close(network.sequence_logits(io["tokens"], captions), io["logits"])
    steps, (_, rows, columns) = config.context_steps, model.spec.grid
    half = config.head_dim // 2
    positions = steps * rows * columns
    close(network.rope_cos, io["rope_cos"][:positions, :half], 1e-6)
    close(network.rope_sin, io["rope_sin"][:positions, :half], 1e-6)
    if "abs_pos_emb" in io:
        assert torch.equal(network.added, io["abs_pos_emb"][0, :positions])
    frames = io["tokens"].view(-1, steps, rows, columns)
    close(network(frames, captions=captions).flatten(1, 2)[:, 1:], io["logits"][:, :-1])
    # With the cache, from one latent frame.
    prompt = io["greedy_prompt"].view(-1, 1, rows, columns)
    future = rollout(network, prompt, None, 1, Sampling(greedy=True), captions=captions)
    assert torch.equal(future.flatten(1), io["greedy"])


@torch.no_grad()
def test_vam_mupgpt2(shared):
    folder, said = parity(shared, "vam_mupgpt2")
    io = load_file(folder / "io.safetensors")
    model = open_published("vam_mupgpt2", [folder / "weights.pt"], grid=said["grid"])
    network = model.network
    seen, layer = [], said["intermediate_layer"]
    if layer == said["model"]["nb_layers"] - 1:  # the last one's is normed
        network.norm.register_forward_hook(lambda *call: seen.append(call[-1]))
    network.blocks[layer].register_forward_hook(lambda *call: seen.append(call[-1]))
    close(network.sequence_logits(io["visual_tokens"].flatten(1)), io["logits"])
    close(seen[-1].view(io["intermediate"].shape), io["intermediate"])
    positions = torch.arange(io["spatial_positions"].shape[1])
    assert torch.equal(positions % network.layout.step_length, io["spatial_positions"][0])
    assert torch.equal(positions // network.layout.step_length, io["temporal_positions"][0])
    prompt = io["visual_tokens"][:, : said["burn_in_frames"]]
    future = rollout(network, prompt, None, said["generated_frames"], Sampling(greedy=True))
    assert torch.equal(future[:, 0], io["greedy_frames"])
    scores = network.score(io["visual_tokens"])
    assert scores.nats[:, 0, 0] == pytest.approx(math.log(said["model"]["vocabulary_size"]))
    expected = torch.nn.functional.cross_entropy(
        io["logits"][:, :-1].flatten(0, 1), io["visual_tokens"].flatten(1)[:, 1:].flatten()
    )
    close(scores.nats.flatten(1)[:, 1:].mean(), expected)
