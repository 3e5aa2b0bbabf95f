"""Floors and mixtures: they are distributions, know the past alone, and code what they promise."""

import numpy as np
import pytest

from training.errors import BadInput
from worldmodel.codec.coder import decode, encode, shortest, words_of
from worldmodel.codec.distributions.mixing import Mixed
from worldmodel.codec.distributions.predictors import FLOORS, Predictor, Previous, sent

VOCAB = 7


def segments() -> list[np.ndarray]:
    """Frames whose tokens repeat mostly; of several lengths."""
    generator = np.random.default_rng(0)
    found = []
    for steps in (40, 33, 1):
        frames = [generator.integers(0, VOCAB, (2, 3))]
        for _ in range(steps - 1):
            fresh = generator.integers(0, VOCAB, (2, 3))
            frames.append(np.where(generator.random((2, 3)) < 0.8, frames[-1], fresh))
        found.append(np.stack(frames))
    return found


def predictors() -> dict[str, Predictor]:
    found: dict[str, Predictor] = {name: kind(VOCAB) for name, kind in FLOORS.items()}
    found["mixed"] = Mixed([kind(VOCAB) for kind in FLOORS.values()])
    return found


@pytest.mark.parametrize("name", predictors())
def test_tokens_come_back_and_cost_what_was_promised(name: str) -> None:
    pytest.importorskip("constriction")
    tokens = segments()
    codes, bits = encode(predictors()[name], tokens, None)
    lengths = [len(own) for own in tokens]
    back = decode(predictors()[name], codes, lengths, (2, 3), None)
    assert all(np.array_equal(a, b) for a, b in zip(tokens, back, strict=True))
    for code, promised in zip(codes, bits, strict=True):
        # The length, which the container tells, may save some bits.
        assert promised - 24 <= 8 * len(code) <= promised + 40


def test_a_code_ends_at_the_byte_that_matters() -> None:
    constriction = pytest.importorskip("constriction")
    family = constriction.stream.model.Categorical(perfect=False)
    generator, excess, lengths = np.random.default_rng(0), [], set()
    for count in range(200):
        probs = generator.dirichlet(np.full(9, 0.3), count % 40 + 1) + 1e-6
        probs /= probs.sum(-1, keepdims=True)
        tokens = np.array([generator.choice(9, p=own) for own in probs], np.int32)
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(tokens, family, probs)
        code, whole = shortest(coder), coder.get_compressed().astype("<u4").tobytes()
        for own in (code, whole):  # whole words: what earlier releases wrote
            decoder = constriction.stream.queue.RangeDecoder(words_of(own))
            assert np.array_equal(decoder.decode(family, probs), tokens)
        assert len(code) <= len(whole)
        excess.append(8 * len(code) + np.log2(probs[np.arange(len(tokens)), tokens]).sum())
        lengths.add(len(code) % 4)
    assert lengths == {0, 1, 2, 3}
    assert np.mean(excess) < 6  # 17 by whole words


def test_what_repeats_costs_less_by_those_that_know_it() -> None:
    pytest.importorskip("constriction")
    cost = {name: sum(encode(p, segments(), None)[1]) for name, p in predictors().items()}
    assert cost["previous"] < 0.8 * cost["unigram"]
    assert cost["mixed"] < 1.02 * min(cost.values())
    assert cost["uniform"] == pytest.approx(6 * 74 * np.log2(VOCAB))


@pytest.mark.parametrize("name", predictors())
def test_distributions_add_up_and_know_the_past_alone(name: str) -> None:
    """The next frame's distribution changes with frames before it, never with itself."""
    frames = segments()[0][None]
    told = []
    for future in (frames[:, 3], (frames[:, 3] + 1) % VOCAB):
        predictor = predictors()[name]
        predictor.start(frames[:, 0], None)
        for frame in (frames[:, 1], frames[:, 2], future):
            guesses = predictor.predict(None)
            probs, cells = next(guesses)
            assert cells == slice(0, 6)
            assert np.allclose(probs.sum(-1), 1)
            assert sent(guesses, frame.reshape(1, -1)) is None
        told.append((probs, next(predictor.predict(None))[0]))
    assert np.array_equal(told[0][0], told[1][0])
    assert name == "uniform" or not np.array_equal(told[0][1], told[1][1])


def test_a_table_of_too_many_pairs_is_refused() -> None:
    with pytest.raises(BadInput, match="floors=previous: 65536 tokens"):
        Previous(2**16)
