"""The order of data is a pure function of (seed, samples consumed)."""

import time
import tracemalloc

import numpy as np
import pytest

from training.loading.loader import OrderedLoader
from training.loading.order import MAX_DRAWN, DataOrder, Weights, sample_ids
from training.loading.permutation import permuted


def test_every_epoch_is_a_permutation_and_no_two_are_alike():
    stream = sample_ids(seed=3, start=0, count=30, num_samples=10)
    epochs = [stream[i : i + 10] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert stream != sample_ids(seed=4, start=0, count=30, num_samples=10)


@pytest.mark.parametrize("start", [0, 1, 9, 10, 17])
def test_any_piece_of_the_stream_can_be_had_alone(start):
    stream = sample_ids(seed=0, start=0, count=40, num_samples=10)
    assert sample_ids(seed=0, start=start, count=12, num_samples=10) == stream[start : start + 12]


def test_a_resumed_order_continues_where_it_stopped():
    whole = list(DataOrder(num_samples=7, num_batches=10, batch_size=3, seed=1))
    rest = DataOrder(num_samples=7, num_batches=10, batch_size=3, seed=1)
    rest.samples_consumed = 4 * 3
    assert list(rest) == whole[4:]
    assert len(rest) == 10


def test_two_ranks_see_the_samples_of_one():
    alone = DataOrder(num_samples=11, num_batches=6, batch_size=4, seed=5)
    ranks = [
        DataOrder(num_samples=11, num_batches=6, batch_size=2, seed=5, rank=r, world_size=2)
        for r in (0, 1)
    ]
    together = [a + b for a, b in zip(*ranks, strict=True)]
    assert together == list(alone)


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match="empty"):
        DataOrder(num_samples=0, num_batches=1, batch_size=1, seed=0)


LARGE = MAX_DRAWN + 7


def test_the_orders_of_existing_runs_are_these():
    assert sample_ids(0, 0, 8, 10) == [9, 5, 0, 3, 8, 6, 7, 2]
    assert sample_ids(5, LARGE - 2, 5, LARGE) == [533426, 499784, 811743, 767562, 163412]


@pytest.mark.parametrize("size", [1, 2, 3, 10, 97, 1000, 2**16 + 1])
def test_a_computed_permutation_has_every_number_once(size):
    found = permuted(np.arange(size), size, "0/0")
    assert sorted(found) == list(range(size))
    assert size < 10 or found.tolist() != permuted(np.arange(size), size, "0/1").tolist()


def test_a_computed_permutation_looks_like_a_drawn_one():
    size, count = 60_000_000, 200_000
    found = permuted(np.arange(count), size, "3/0")
    boxes = np.bincount(found * 100 // size, minlength=100)
    steps = np.bincount(np.diff(found) % size * 100 // size, minlength=100)
    for seen in (
        boxes,
        steps,
    ):  # chi squared of 99 degrees of freedom: 149 is passed by one in 1000
        assert ((seen - count / 100) ** 2 / (count / 100)).sum() < 149
    assert abs(np.corrcoef(found, permuted(np.arange(count), size, "3/1"))[0, 1]) < 0.01


@pytest.mark.parametrize("start", [0, 1, 4095, 4096, LARGE - 5, 3 * LARGE - 1])
def test_any_piece_of_a_large_order_can_be_had_alone(start):
    pieces = [sample_ids(0, start + i, 1, LARGE)[0] for i in range(6)]
    assert sample_ids(0, start, 6, LARGE) == pieces


def test_equal_weights_give_a_large_order_without_weights():
    weights = Weights(np.full(LARGE, 3.0))
    assert sample_ids(0, 5000, 50, LARGE, weights) == sample_ids(0, 5000, 50, LARGE)
    twice = np.ones(LARGE)
    twice[: LARGE // 2] = 3
    drawn = np.array(sample_ids(0, 0, 40_000, LARGE, Weights(twice)))
    assert (drawn < LARGE // 2).mean() == pytest.approx(0.75, abs=0.01)


def test_an_order_of_any_size_costs_no_memory_and_no_start():
    order = DataOrder(10**12, num_batches=10**6, batch_size=4, seed=0)
    tracemalloc.start()
    began = time.perf_counter()
    batches = iter(order)
    found = [next(batches) for _ in range(100)]
    assert time.perf_counter() - began < 1.0
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert all(0 <= i < 10**12 for batch in found for i in batch)


class Numbers:
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index

    def describe(self, index: int) -> dict[str, int]:
        return {"number": index}


def loader() -> OrderedLoader:
    return OrderedLoader(Numbers(LARGE), DataOrder(LARGE, 10, 3, seed=1), list)


def test_a_checkpoint_of_before_goes_on_in_the_order_that_it_began_with():
    new = loader()
    batches = iter(new)
    first = [next(batches) for _ in range(4)]
    again = loader()
    again.load_state_dict(new.state_dict())
    assert first + list(again) == list(loader())
    before = loader()
    before.load_state_dict({"samples_consumed": 12})
    ids = sample_ids(1, 12, 18, LARGE, drawn=True)
    assert list(before) == [ids[i : i + 3] for i in range(0, 18, 3)] != list(again)
    assert before.state_dict() == {"samples_consumed": 30, "drawn_order": 1}
