"""9 frames given, 8 predicted, with Cosmos' autoregressive model: its published logits."""

import json

import numpy as np
import pytest
import torch
from published_files import parity
from safetensors.torch import load_file

from drives.importers.tokens.onex_v2 import import_onex_v2
from drives.tokens.store import TokenDrive
from training.errors import BadInput
from worldmodel.decoding.config import Sampling
from worldmodel.evaluation.challenges.clip_compression import (
    ClipGrids,
    check_clips,
    judge_clips,
    sample_clips,
)
from worldmodel.published import open_published
from worldmodel.windows import collate


@pytest.fixture
def golden(shared, tmp_path):
    folder, said = parity(shared, "cosmos_ar", "a")
    (tmp_path / "config.json").write_text(json.dumps(said["model"]))
    model = open_published("cosmos_ar", [folder / said["weights"], tmp_path / "config.json"])
    io, (_, rows, columns) = load_file(folder / said["io"]), model.spec.grid
    clips = io["tokens"].view(-1, model.network.config.context_steps, rows, columns)
    return model.network, clips, io


def in_a_store(clips, name="shard") -> ClipGrids:
    tokens = np.asarray(clips)
    return ClipGrids([TokenDrive(name, "val", tokens, np.zeros((len(tokens), 0), np.float32))])


def test_the_loss_is_that_of_the_published_logits(golden):
    network, clips, io = golden
    windows = in_a_store(clips)
    batches = [collate([windows[i]]) for i in range(len(windows))]
    assert torch.equal(torch.cat([batch.tokens for batch in batches]), clips)
    found = judge_clips(network, batches, "cpu", top=network.spec.vocab_size)
    space = network.spec.tokens_per_step
    given, flat = 2 * space, clips.flatten(1)
    nll = -io["logits"].double().log_softmax(-1)[:, :-1].gather(-1, flat[:, 1:, None])[..., 0]
    np.testing.assert_allclose(found.nats, nll[:, given - 1 :].mean(1), atol=1e-4)
    np.testing.assert_allclose(found.top_nats, found.nats, atol=1e-5)
    best = io["logits"][:, given - 1 : -1].argmax(-1) == flat[:, given:]
    np.testing.assert_allclose(found.correct, best.double().mean(1))
    assert (found.listed == 1).all()


@torch.no_grad()
def test_the_third_grid_is_sampled_given_two(golden):
    network, clips, _ = golden
    batches = [collate([in_a_store(clips)[i] for i in range(len(clips))])]
    sampled, matches, seconds = sample_clips(network, batches, "cpu", 8, Sampling(greedy=True))
    assert torch.equal(sampled[:, :2], clips[:, :2])
    ids = clips[:, :2].flatten(1)
    for _ in range(network.spec.tokens_per_step):
        ids = torch.cat([ids, network.sequence_logits(ids)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(sampled.flatten(1), ids)
    share = (sampled[:, 2] == clips[:, 2]).flatten(1).double().mean(1)
    np.testing.assert_allclose(matches, share)
    assert seconds > 0
    # As published: not the likeliest; and a clip does not depend on those beside it.
    drawn = sample_clips(network, batches, "cpu", 8)[0]
    alone = sample_clips(network, [collate([in_a_store(clips)[1]])], "cpu", 8)[0]
    assert not torch.equal(drawn, sampled)
    assert torch.equal(drawn[1], alone[0])


def test_clips_of_the_published_recordings(golden, shared, tmp_path):
    store = import_onex_v2(shared / "parity/onex_data/val_v2.0", tmp_path / "store")
    clips = ClipGrids(store.drives("val"))
    tokens, actions = clips[0]
    assert tokens.shape == (3, 32, 32)
    assert actions.shape == (3, 25)
    assert (actions == actions[0]).all()
    assert clips.describe(0) == {"drive": "val_v2.0-000-000000", "steps": [0, 0]}
    with pytest.raises(BadInput, match="clips of 3 grids of 32x32 tokens need a model of one grid"):
        check_clips(golden[0], store.spec.grid, "card=onex")
    check_clips(golden[0], (3, *golden[0].spec.grid[1:]), "card=onex")
