"""The occupancy model gives the numbers of Video Occupancy Models, within its tolerances."""

import pytest
import torch
from torch import Tensor
from voc_files import frames, read, upstream_name, voc

from worldmodel.decoding import Sampling
from worldmodel.dynamics.occupancy.model import Occupancy

LOSS = {"atol": 1e-5, "rtol": 0.0}
GRADIENT = {"atol": 1e-5, "rtol": 1e-3}


def windows(network: Occupancy, io: dict[str, Tensor], number: int) -> Tensor:
    return frames(network, torch.stack([io["context"][number], io["target"][number]], dim=1))


def compare(network: Occupancy, io: dict[str, Tensor], prefix: str, now: dict[str, Tensor]) -> None:
    layers, seen = network.config.num_layers, 0
    for name, value in now.items():
        if prefix + upstream_name(name, layers) in io:
            torch.testing.assert_close(value, read(io, prefix, name, layers), **GRADIENT)
            seen += 1
    assert seen == sum(key.startswith(prefix) for key in io)


@pytest.mark.parametrize("number", [0, 1])
def test_bootstraps_of_the_target_network(shared, number: int) -> None:
    """Theirs are the most probable tokens, so ours are as well."""
    network, io, _, _ = voc(shared)
    state = frames(network, io["target"][number])[:, None]
    found = network.bootstrap(state, None, None, None, Sampling(greedy=True))
    assert torch.equal(found.flatten(1), io["bootstrap"][number])
    jumped = io["bernoulli"][number].bool()[:, None]
    mixed = torch.where(jumped, found.flatten(1), io["target"][number])
    assert torch.equal(mixed, io["p_target"][number])


@pytest.mark.parametrize("number", [0, 1])
def test_targets_are_mixed_by_the_same_draw(shared, number: int, monkeypatch) -> None:
    """With their draws and greedy bootstraps, `targets` gives their targets."""
    network, io, _, said = voc(shared)
    jumped = io["bernoulli"][number][:, None]
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: 1 - jumped)  # below gamma where 1
    draw = network.bootstrap
    greedy = Sampling(greedy=True)
    monkeypatch.setattr(network, "bootstrap", lambda *asked: draw(*asked[:-1], greedy))
    monkeypatch.setattr("worldmodel.decoding.raster.Decoder._draw_uniform", unused_uniform)
    found = network.targets(windows(network, io, number))
    assert torch.equal(found.flatten(1), io["p_target"][number])
    assert said["gamma"] == network.config.gamma


def unused_uniform(decoder) -> None:
    decoder._uniform = torch.zeros(len(decoder.tokens), decoder.layout.tokens_per_step)


def test_loss_over_context_and_target_gradients_and_target_network(shared) -> None:
    network, io, _, _ = voc(shared)
    for number in (0, 1):
        targets = frames(network, io["p_target"][number])[:, None]
        sequence = torch.cat([io["context"][number], io["p_target"][number]], dim=1)
        logits = network.online.sequence_logits(sequence)
        torch.testing.assert_close(logits, io["logits"][number], atol=2e-4, rtol=0)
        loss = network.loss_of(windows(network, io, number), targets)
        torch.testing.assert_close(loss, io["gpt_loss"][number], **LOSS)
        loss.backward()
        gradients = {n: p.grad for n, p in network.online.named_parameters() if p.grad is not None}
        suffix = "1" if number == 0 else "12"  # upstream sums the gradients of two batches
        compare(network, io, f"grad{suffix}.", gradients)
        norm = torch.stack([g.norm() for g in gradients.values()]).norm()
        torch.testing.assert_close(norm, io[f"grad{suffix}_norm"], **GRADIENT)
    network.after_step()
    compare(network, io, "target_after.", dict(network.target.named_parameters()))
