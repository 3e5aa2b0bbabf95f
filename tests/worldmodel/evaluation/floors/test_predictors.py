"""The trivial predictors, where their cross entropy is known."""

import tracemalloc

import numpy as np
import pytest

from drives.tokens.store import TokenDrive
from worldmodel.evaluation.floors import predictors
from worldmodel.evaluation.floors.predictors import floors
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import KnownEntropyWorld


def drive(tokens: np.ndarray, split: str) -> TokenDrive:
    return TokenDrive("d", split, tokens, np.zeros((len(tokens), 0), np.float32))


def scored(train, test, vocab):
    """Mean floors of the whole of `test` as one window."""
    return {k: v.mean() for k, v in floors([drive(train, "train")], test[None], vocab).items()}


def noise(seed: int, steps: int = 4000, vocab: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocab, (steps, 2, 3))


def test_on_pure_noise_every_floor_is_the_uniform_entropy():
    scores = scored(noise(0), noise(1), 16)
    for name, nats in scores.items():
        assert nats == pytest.approx(np.log(16), rel=0.01), name


def test_a_constant_cell_is_seen_by_position_and_a_still_scene_by_copy():
    cells = np.tile(np.arange(6).reshape(1, 2, 3), (500, 1, 1))
    scores = scored(cells, cells, 16)
    assert scores["unigram"] == pytest.approx(np.log(6), rel=0.01)
    assert scores["position"] < 0.02
    assert scores["copy_last_frame"] < 0.02
    assert scores["previous_token"] < 0.02


@pytest.mark.parametrize("vocab", [16, 200_000])  # counted densely and by keys
def test_from_nothing_the_first_frame_is_scored_without_a_past(vocab):
    train = noise(0, 500) ** 2 % 16
    windows = np.stack([noise(seed, 5) for seed in (1, 2, 3)])
    after = floors([drive(train, "train")], windows, vocab)
    whole = floors([drive(train, "train")], windows, vocab, from_nothing=True)
    counts = np.bincount(train[1:].ravel(), minlength=vocab) + 0.5
    alone = -np.log(counts / counts.sum())[windows[:, 0]].reshape(3, -1).mean(1)
    for name, nats in whole.items():
        assert nats[:, 1:] == pytest.approx(after[name], abs=1e-12)
        if name != "position":
            assert nats[:, 0] == pytest.approx(alone, abs=1e-12)
    cells = np.tile(np.arange(6).reshape(1, 2, 3), (500, 1, 1))
    fixed = floors([drive(cells, "train")], cells[None, :3], vocab, from_nothing=True)
    assert fixed["position"][0, 0] < 0.02 < fixed["copy_last_frame"][0, 0]


def test_copying_costs_what_the_process_says():
    """Each cell is redrawn uniformly with probability p: the conditional entropy is closed."""
    world = KnownEntropyWorld(KnownEntropyConfig(yaw_probs=(0.0, 1.0, 0.0)))
    train, test = (world.sample(6000, seed)[0] for seed in (0, 1))
    scores = scored(train, test, world.spec.vocab_size)
    assert scores["copy_last_frame"] == pytest.approx(world.entropy(), rel=0.02)
    assert scores["previous_token"] == pytest.approx(world.entropy(), rel=0.02)
    assert scores["unigram"] == pytest.approx(np.log(8), rel=0.01)


def test_unseen_tokens_cost_a_finite_amount():
    scores = scored(noise(0, 50, 4), noise(1, 50, 16), 16)
    assert all(np.isfinite(list(scores.values())))


def by_definition(train, window, vocab, strengths):
    """Nats [step] of every floor, token by token, with the strengths of the priors given."""
    train, window = (x.reshape(len(x), -1) for x in (train, window))
    before, after = train[:-1], train[1:]
    unigram = np.bincount(after.ravel(), minlength=vocab) + 0.5
    unigram = unigram / unigram.sum()
    repeat = ((before == after).sum() + 0.5) / (before.size + 1)
    nats = {name: np.zeros(window[1:].shape) for name in ("unigram", "copy_last_frame", *strengths)}
    for (step, cell), new in np.ndenumerate(window[1:]):
        old, base = window[step, cell], unigram[new]
        nats["unigram"][step, cell] = -np.log(base)
        nats["copy_last_frame"][step, cell] = -np.log((1 - repeat) * base + repeat * (old == new))
        seen = {
            "position": after[:, cell] == new,
            "previous_token": (after == new)[before == old],
        }
        totals = {"position": len(after), "previous_token": (before == old).sum()}
        for name, prior in strengths.items():
            share = (seen[name].sum() + prior * base) / (totals[name] + prior)
            nats[name][step, cell] = -np.log(share)
    return {name: values.mean(1) for name, values in nats.items()}


@pytest.mark.parametrize("dense", [True, False])
def test_counts_are_those_of_the_definition_in_pieces_and_of_all_drives(monkeypatch, dense):
    monkeypatch.setattr(predictors, "PIECE", 20)
    monkeypatch.setattr(predictors, "DENSE", 2**20 if dense else 0)
    train = (noise(0, 90) // 2 + noise(3, 90) // 3)[:90]
    windows = np.stack([noise(1, 4), noise(2, 4)])
    found = floors([drive(train, "train")], windows, 16)
    choices = [10.0**k for k in range(-2, 5)]
    for number, window in enumerate(windows):
        same = {name: False for name in ("position", "previous_token")}
        for prior in choices:
            expected = by_definition(train, window, 16, dict.fromkeys(same, prior))
            for name in same:
                same[name] |= np.allclose(found[name][number], expected[name], atol=1e-12)
        for name in ("unigram", "copy_last_frame"):
            np.testing.assert_allclose(found[name][number], expected[name], atol=1e-12)
        assert all(same.values())


def test_drives_do_not_run_into_each_other_and_damaged_ones_do_not_count():
    parts = noise(0, 40), noise(1, 30)
    split = floors([drive(parts[0], "train"), drive(parts[1], "train")], noise(2, 5)[None], 16)
    joined = floors([drive(np.concatenate(parts), "train")], noise(2, 5)[None], 16)
    assert (split["unigram"] != joined["unigram"]).all()  # one pair less
    broken = TokenDrive("b", "train", 0 * parts[0], np.zeros((40, 0), np.float32), "cut off")
    alone = floors([drive(parts[1], "train")], noise(2, 5)[None], 16)
    with_damage = floors([broken, drive(parts[1], "train")], noise(2, 5)[None], 16)
    for name, nats in alone.items():
        np.testing.assert_array_equal(with_damage[name], nats)


@pytest.mark.parametrize("vocab", [64, 4000])
def test_memory_does_not_grow_with_the_store(monkeypatch, vocab):
    for name in ("MOST_TUNED", "PIECE"):
        monkeypatch.setattr(predictors, name, 12_000)
    windows, peaks = noise(1, 5, vocab)[None], []
    for num in (20_000, 80_000):
        store = [drive(noise(0, num, vocab).astype(np.uint16), "train")]
        tracemalloc.start()
        floors(store, windows, vocab)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
