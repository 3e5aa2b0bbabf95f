"""Tokens to bits and back: range coding of several segments in lockstep.

The coder is `constriction` (Bamler 2022, arXiv 2201.01741): 24 bits of precision, every token has
at least the smallest probability. Its models are made from float64 by sums in the order of the
vocabulary, which is the same on every machine.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from training.errors import BadInput, first_line
from worldmodel.codec.distributions.predictors import Predictor, Told, sent

CODER = "constriction range, 24 bits"
# Gets the row, the step, the probabilities [cell vocab] and the cells; gives the tokens [cell].
Pick = Callable[[int, int, np.ndarray, slice], np.ndarray]
LEAST = 2.0**-24  # what the coder gives a token at least
MOST_TOKENS = 2**22  # each has a 2^24th at least


def opened() -> tuple[Any, Any]:
    """The package, and its family of distributions; BadInput where it is not installed."""
    try:
        import constriction
    except ImportError as error:
        raise BadInput(
            "the codec needs the package constriction; pip install 'dashcast[codec]'"
        ) from error
    return constriction, constriction.stream.model.Categorical(perfect=False)


def check_vocabulary(vocab_size: int) -> None:
    if vocab_size > MOST_TOKENS:
        raise BadInput(f"a vocabulary of {vocab_size} tokens; the coder takes {MOST_TOKENS}")


def encode(
    predictor: Predictor,
    tokens: Sequence[Integer[np.ndarray, "step *grid"]],
    actions: Sequence[Float[np.ndarray, "step action"]] | None,
    done: Callable[[int], object] = lambda count: None,
) -> tuple[list[bytes], list[float]]:
    """Code segments; return each one's bytes and its cross entropy in bits.

    Args:
        done: is told how many frames were coded.
    """
    library, family = opened()
    coders = [library.stream.queue.RangeEncoder() for _ in tokens]
    flat = [own.reshape(len(own), -1).astype(np.int32) for own in tokens]
    bits = np.zeros(len(flat))

    def pick(row: int, step: int, probs: np.ndarray, cells: slice) -> np.ndarray:
        own = flat[row][step, cells]
        coders[row].encode(own, family, probs)
        bits[row] -= np.log2(np.maximum(probs[np.arange(len(own)), own], LEAST)).sum()
        return own

    if predictor.foresees:
        whole = slice(0, flat[0].shape[1])
        for row, segment in enumerate(tokens):
            pick(row, 0, even(predictor, segment.shape[1:]), whole)
            given = None if actions is None else actions[row]
            for step, probs in enumerate(predictor.known(segment, given), 1):
                pick(row, step, probs, whole)
                done(1)
            done(1)
    else:
        lengths = [len(own) for own in flat]
        for step, _ in enumerate(frames(predictor, lengths, tokens[0].shape[1:], actions, pick)):
            done(sum(length > step for length in lengths))
    return [shortest(coder) for coder in coders], bits.tolist()


def shortest(coder: Any) -> bytes:
    """The code of an encoder: 32-bit words, of which the last keeps only the bytes that matter.

    A decoder reads zeros behind the end, so any number of the last interval tells the tokens; that
    with the most zeros takes 4 bits more than the tokens cost on average, a whole word 17. What is
    left of the last word is written from its high byte on.
    """
    words = coder.get_compressed()
    _, (lower, size) = coder.pos()
    if len(words) and lower + size < 2**64 and int(words[-1]) == (lower + 2**32 - 1) >> 32:
        for count in range(4):
            grain = 2 ** (64 - 8 * count)
            if (point := -(-lower // grain) * grain) < lower + size:
                last = (point >> 32).to_bytes(4, "big")[:count]
                return bytes(words[:-1].astype("<u4").tobytes() + last)
    return bytes(words.astype("<u4").tobytes())


def words_of(code: bytes) -> np.ndarray:
    """The words of `shortest`."""
    whole = len(code) // 4 * 4
    words = np.frombuffer(code[:whole], "<u4").astype(np.uint32)
    if whole == len(code):
        return words
    return np.append(words, np.uint32(int.from_bytes(code[whole:].ljust(4, b"\0"), "big")))


def even(predictor: Predictor, grid: tuple[int, ...]) -> Float[np.ndarray, "cell vocab"]:
    """The probabilities of a first frame, which has no past."""
    shape = int(np.prod(grid)), predictor.vocab_size
    return np.full(shape, np.float64(1 / predictor.vocab_size))


def decode(
    predictor: Predictor,
    codes: Sequence[bytes],
    lengths: Sequence[int],
    grid: tuple[int, ...],
    actions: Sequence[Float[np.ndarray, "step action"]] | None,
    done: Callable[[int], object] = lambda count: None,
) -> list[Integer[np.ndarray, "step *grid"]]:
    """The tokens of segments; whether they are those that were coded is not known here.

    Raises:
        BadInput: the bits cannot come from these probabilities.
    """
    library, family = opened()
    coders = [library.stream.queue.RangeDecoder(words_of(code)) for code in codes]

    def pick(row: int, step: int, probs: np.ndarray, cells: slice) -> np.ndarray:
        try:
            found: np.ndarray = coders[row].decode(family, probs)
        except AssertionError as error:  # the package's own, of bits that no encoder wrote
            raise BadInput(f"its bits fit no token at step {step} ({first_line(error)})") from error
        return found

    found = []
    for step, frame in enumerate(frames(predictor, lengths, grid, actions, pick)):
        found.append(frame)
        done(sum(length > step for length in lengths))
    whole = np.stack(found, axis=1)
    return [own[:length] for own, length in zip(whole, lengths, strict=True)]


def frames(
    predictor: Predictor,
    lengths: Sequence[int],
    grid: tuple[int, ...],
    actions: Sequence[Float[np.ndarray, "step action"]] | None,
    pick: Pick,
) -> Iterator[Integer[np.ndarray, "row height width"]]:
    """The frames of segments in lockstep; `pick` gives their tokens.

    The first frame is uniform: it has no past. Segments that have ended go on with zeros, which
    nobody codes.
    """
    longest, rows = max(lengths), len(lengths)
    acting = None if actions is None else _padded(actions, longest)
    step = 0

    def tokens_of(probs: np.ndarray, cells: slice) -> np.ndarray:
        tokens = np.zeros(probs.shape[:2], np.int64)
        for row, length in enumerate(lengths):
            if step < length:
                tokens[row] = pick(row, step, np.ascontiguousarray(probs[row]), cells)
        return tokens

    first = even(predictor, grid)
    space = len(first)
    frame = tokens_of(np.broadcast_to(first, (rows, *first.shape)), slice(0, space))
    frame = frame.reshape(rows, *grid)
    yield frame
    if longest > 1:
        predictor.start(frame, acting)
    for step in range(1, longest):
        guesses = predictor.predict(None if acting is None else acting[:, step - 1])
        frame = np.zeros((rows, space), np.int64)
        told: Told | None = next(guesses)
        while told is not None:
            frame[:, told[1]] = tokens_of(*told)
            told = sent(guesses, frame[:, told[1]])
        yield frame.reshape(rows, *grid)


def _padded(
    actions: Sequence[Float[np.ndarray, "step action"]], steps: int
) -> Float[np.ndarray, "row step action"]:
    filled = np.zeros((len(actions), steps, actions[0].shape[1]), np.float32)
    for row, own in zip(filled, actions, strict=True):
        row[: len(own)] = own
    return filled
