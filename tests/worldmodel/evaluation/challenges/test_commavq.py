"""commaVQ's evaluation: 59 windows of a minute, its numbers by window."""

import math

import numpy as np
import pytest
import torch
from published_files import gpt2m_files, parity
from safetensors.torch import load_file
from tiny_gpt import SPEC, make_model

from drives.tokens.store import TokenDrive
from training.errors import BadInput
from worldmodel.evaluation.challenges.commavq import (
    check_context,
    commavq_windows,
    judge_windows,
    predicts_separators,
)
from worldmodel.published import open_published
from worldmodel.windows import collate


def drive_of(tokens, name="minute") -> TokenDrive:
    tokens = np.asarray(tokens)
    return TokenDrive(name, "test", tokens, np.zeros((len(tokens), 0), np.float32))


def judged(network, drives, frames=20):
    windows = commavq_windows(drives, frames)
    return judge_windows(network, [collate([windows[i]]) for i in range(len(windows))], "cpu")


def test_a_minute_has_59_windows(shared):
    minute = drive_of(np.load(shared / "data/commavq/tokens.npy"))
    windows = commavq_windows([minute])
    starts = [windows.describe(index)["steps"][0] for index in range(len(windows))]
    assert starts == [20 * i for i in range(59)]
    assert len(commavq_windows([drive_of(minute.tokens[:1181])])) == 59
    # No BOS after the last.
    assert len(commavq_windows([drive_of(minute.tokens[:1180])])) == 58


@torch.no_grad()
def test_the_published_numbers(shared):
    folder, said = parity(shared, "commavq_gpt")
    io, width = load_file(folder / "io.safetensors"), said["model"]["tokens_per_frame"]
    model = open_published("commavq_gpt", [folder / "weights.pt", folder / "config.json"])
    frames = io["tokens"].unflatten(1, (-1, width))[:, :, 1:].unflatten(2, model.spec.grid[1:])
    length = frames.shape[1] - 1
    found = judged(model.network, [drive_of(f, f"s{i}") for i, f in enumerate(frames)], length)
    nll = io["nll"][:, : length * width].double()  # the last target is a BOS
    np.testing.assert_allclose(found.with_separators, nll.mean(1), atol=1e-4)
    real = nll.unflatten(1, (length, width))[..., :-1]
    np.testing.assert_allclose(found.without_separators, real.flatten(1).mean(1), atol=1e-4)


@torch.no_grad()
def test_windows_are_those_of_the_whole_stream(shared, tmp_path):
    """As the notebook has it: one sequence of a segment, cut, and its targets moved up by one."""
    model = open_published("commavq_gpt", gpt2m_files(tmp_path))
    tokens = np.load(shared / "data/commavq/tokens.npy")[:61].astype(np.int64)
    stream = torch.from_numpy(tokens).flatten(1)
    stream = torch.cat([torch.full((61, 1), 1024), stream], dim=1).flatten()
    x = stream[: 60 * 129].view(3, 2580)
    y = stream[1 : 60 * 129 + 1].view(3, 2580)
    logits = model.network.sequence_logits(x).double()
    nll = -logits.log_softmax(-1).gather(-1, y[..., None])[..., 0]
    found = judged(model.network, [drive_of(tokens)])
    np.testing.assert_allclose(found.with_separators, nll.mean(1), atol=1e-5)
    real = torch.where(y == 1024, 0, nll).sum(1) / 2560
    np.testing.assert_allclose(found.without_separators, real, atol=1e-5)
    assert (y == 1024).sum() == 60


def test_the_rate_is_raw_bits_per_bit_of_the_model(shared, tmp_path):
    model = open_published("commavq_gpt", gpt2m_files(tmp_path))
    torch.nn.init.zeros_(model.network.head.weight)
    tokens = np.load(shared / "data/commavq/tokens.npy")[:41]
    found = judged(model.network, [drive_of(tokens)])
    # Every id alike: 1025 of them, BOS too.
    assert found.with_separators == pytest.approx(math.log(1025), abs=1e-5)
    assert found.bits_without_separators == pytest.approx(math.log2(1025), abs=1e-5)
    assert found.bits_with_separators == pytest.approx(math.log2(1025) * 129 / 128, abs=1e-5)
    assert found.rate(found.bits_without_separators[0]) == pytest.approx(10 / math.log2(1025))
    # SEEDS: 2.02 nats with BOS are 2.937 bits per token and a rate of 3.40.
    bits = 2.02 * 129 / 128 / math.log(2)
    assert (round(bits, 3), round(found.rate(bits), 2)) == (2.937, 3.4)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["none", "continuous"])
def test_a_head_without_separators_is_judged_on_tokens(layout):
    network = make_model(layout)
    assert not predicts_separators(network)
    torch.manual_seed(2)
    tokens, actions = torch.randint(0, SPEC.vocab_size, (9, 2, 3)), torch.randn(9, 2)
    drive = TokenDrive("a", "test", tokens.numpy(), actions.numpy())
    found = judged(network, [drive], 4)
    assert found.with_separators is found.bits_with_separators is None
    for index, start in enumerate((0, 4)):
        part = slice(start, start + 4)
        nats = network.score(tokens[None, part], actions[None, part]).nats.mean()
        assert found.without_separators[index] == pytest.approx(nats.item(), abs=1e-5)


def test_what_cannot_be_measured_is_refused():
    network, drive = make_model("none"), drive_of(np.zeros((20, 2, 3), np.uint16))
    with pytest.raises(BadInput, match=r"card\.frames=20: the model reads 4 frames"):
        check_context(network, 20, "card")
    with pytest.raises(BadInput, match=r"longer than every drive"):
        commavq_windows([drive_of(drive.tokens[:4])], 4)
    check_context(network, 4, "card")
