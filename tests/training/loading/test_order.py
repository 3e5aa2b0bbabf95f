"""The order of data is a pure function of (seed, samples consumed)."""

import pytest

from training.loading.order import DataOrder, sample_ids


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
