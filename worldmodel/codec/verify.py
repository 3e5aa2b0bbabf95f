"""Codes and decodes tokens, compares them, and sets the size beside what others reach."""

import math
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from training.errors import TrainingFault
from training.pages.text_table import text_table
from worldmodel.codec.compress import Coded, code_group, compress, measured
from worldmodel.codec.decompress import decompress
from worldmodel.codec.distributions.models import open_models, predictor_of, slides_of
from worldmodel.codec.distributions.predictors import FLOORS, Predictor
from worldmodel.codec.options import CodecOptions
from worldmodel.codec.rivals import rivals
from worldmodel.codec.tokens import CodedTokens, open_tokens

Row = tuple[str, float | None]


def verify(source: Path, options: CodecOptions, cache: str = "data") -> str:
    """A round trip, and a table of bits per token.

    Raises:
        BadInput: as `compress`.
        TrainingFault: what comes back is not what was coded.
    """
    models = open_models(options.ckpts)
    spec = models[0].spec if models else None
    given = open_tokens(source, spec, options.vocab, cache)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens.codec")
        back = Path(folder, "back.npy" if given.store is None else "back")
        begun = time.perf_counter()
        compress(source, path, options, cache)
        coded_s = time.perf_counter() - begun
        decompress(path, back, options.ckpts)
        decoded_s = time.perf_counter() - begun - coded_s
        _compare(given, open_tokens(back, given.spec, None, cache), source)
        coded = measured(path)
    rows = _own(coded)
    if models and options.arithmetic == "exact":
        slides = slides_of(models, options.slide_steps)
        floats = predictor_of(models, options.floor_names, given.spec, "float", slides)
        bits = _cross_entropy(given, floats, options) / coded.num_tokens
        rows.append(("cross entropy in floating point", bits))
    for name, kind in FLOORS.items():
        bits = _cross_entropy(given, kind(given.spec.vocab_size), options)
        rows.append((f"{name}, learned while coding", bits / coded.num_tokens))
    tokens = np.concatenate([drive.tokens for drive in given.drives])
    for name, size in rivals(tokens, given.spec.vocab_size).items():
        rows.append((name, None if size is None else 8 * size / coded.num_tokens))
    table = text_table(
        ["codec", "bits per token", "rate"],
        [(name, bits, bits and math.log2(given.spec.vocab_size) / bits) for name, bits in rows],
    )
    return (
        f"{source}: {coded.num_steps} steps, equal after decoding; coded at "
        f"{coded.num_steps / coded_s:.1f} and decoded at {coded.num_steps / decoded_s:.1f} steps "
        f"per second\n{table}"
    )


def _own(coded: Coded) -> list[Row]:
    without_actions = coded.file_bytes - coded.action_bytes
    return [
        ("this codec", 8 * coded.code_bytes / coded.num_tokens),
        ("this codec, with header and checksums", 8 * without_actions / coded.num_tokens),
        ("cross entropy under the same scoring", coded.bits / coded.num_tokens),
    ]


def _cross_entropy(given: CodedTokens, predictor: Predictor, options: CodecOptions) -> float:
    """Bits of all tokens under a predictor."""
    cuts, total = given.cuts(options.segment_steps), 0.0
    while group := list(islice(cuts, options.parallel)):
        total += sum(segment.about.bits for segment in code_group(predictor, given, group))
    return total


def _compare(given: CodedTokens, back: CodedTokens, source: Path) -> None:
    """TrainingFault unless both hold the same drives, tokens and actions."""
    same = [drive.id for drive in given.drives] == [drive.id for drive in back.drives]
    for ours, theirs in zip(given.drives, back.drives, strict=False):
        same &= bool(np.array_equal(ours.tokens, theirs.tokens))
        same &= ours.actions.tobytes() == theirs.actions.tobytes()
        same &= ours.split == theirs.split
    if not same or given.described != back.described:
        raise TrainingFault(f"{source}: decoded to other tokens than were coded; report this")
