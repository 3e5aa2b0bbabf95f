"""Self-compression: rows lie on grids, the price draws depths down, what is kept opens plainly."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from training.optimization.recompute import maybe_checkpoint
from training.optimization.self_compression import (
    BITS_PACE,
    LearnedGrid,
    learn_depths,
    price,
    settled,
    weight_bits,
)


def grid_of(weight: torch.Tensor, bits: float) -> LearnedGrid:
    grid = LearnedGrid(weight)
    nn.init.constant_(grid.bits, bits / BITS_PACE)
    return grid


def test_rows_lie_on_powers_of_two_and_no_bits_are_zeros() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 40) * torch.logspace(-2, 1, 5)[:, None]
    for bits, levels in ((0.0, 1), (1.585, 3), (4.0, 17)):
        grid = grid_of(weight, bits)
        steps = torch.exp2((grid.exponent * 8.0).round())
        integers = grid(weight) / steps[:, None]
        assert torch.equal(integers, integers.round())
        assert max(len(row.unique()) for row in integers) <= levels
    fine = grid_of(weight, 12.0)
    fine.exponent.data -= 6 / 8.0
    assert ((fine(weight) - weight).norm() / weight.norm()).item() < 1e-3


def test_clipped_weights_ask_for_bits_and_the_price_for_none() -> None:
    weight = torch.randn(4, 64)
    grid = grid_of(weight, 2.0)
    (grid(weight) - weight).square().mean().backward()
    assert grid.bits.grad is not None
    assert (grid.bits.grad < 0).all()
    network = nn.Sequential(nn.Linear(8, 4), nn.Embedding(3, 8))
    learn_depths(network)
    bits = weight_bits(network)
    assert bits.item() == pytest.approx(6.0 * (32 + 24))
    bits.backward()
    assert all((p.grad > 0).all() for n, p in network.named_parameters() if n.endswith("0.bits"))
    assert [price(step, 100) for step in (0, 25, 50, 100)] == [0.0, 0.5, 1.0, 1.0]


def test_a_checkpoint_opens_under_plain_names_as_it_computed() -> None:
    def made() -> nn.Sequential:
        return nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 6), nn.Conv2d(1, 2, 3))

    network = made()
    learn_depths(network)
    plain = settled(network.state_dict())
    for name, value in plain.items():
        number, own = name.split(".")
        assert torch.equal(value, getattr(network[int(number)], own))
    made().load_state_dict(plain)  # strict
    assert settled(plain).keys() == plain.keys()


class Twice(nn.Linear):
    """Reads its weight twice, as a layer that first asks for its type."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.weight.dtype) @ self.weight.mT


def test_recomputed_activations_give_the_same_gradients() -> None:
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(Twice(4, 4), Twice(4, 4))
        learn_depths(network)
        x = torch.randn(3, 4)
        with parametrize.cached():
            for layer in network:
                x = maybe_checkpoint(layer, x, recompute=recompute)
            loss = x.square().sum()
        loss.backward()
        found.append([p.grad for p in network.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 4
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_what_is_parametrized_already_stays() -> None:
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2))
    names = [name for name in network.state_dict() if name.startswith("0.")]
    learn_depths(network)
    assert [name for name in network.state_dict() if name.startswith("0.")] == names
    kept = settled(network.state_dict())
    assert {"1.weight", "1.bias", *names} == set(kept)


def test_weights_of_other_parametrizations_stay_as_they_are() -> None:
    """Tokens that share digits have an `original` too, and no grid."""
    weights = {"embed.parametrizations.weight.original": torch.ones(2)}
    weights["embed.parametrizations.weight.0.tables.0"] = torch.ones(2)
    assert settled(weights) == weights
