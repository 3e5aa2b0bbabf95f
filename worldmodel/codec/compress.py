"""Tokens into a container: segment by segment, resumed where it was interrupted."""

import fcntl
import lzma
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float, Integer
from tqdm import tqdm

from drives.tokens.drive import TokenDrive
from training.disk.places import refuse_existing, writable_file
from training.errors import BadInput
from worldmodel.codec.coder import CODER, check_vocabulary, encode, opened
from worldmodel.codec.container import (
    SCHEMA,
    CodedSegment,
    ContainerWriter,
    Header,
    SegmentAbout,
    digest_of,
    encoded,
)
from worldmodel.codec.distributions.models import (
    describe_all,
    open_models,
    predictor_of,
    slides_of,
)
from worldmodel.codec.distributions.network import EXACT
from worldmodel.codec.distributions.predictors import Predictor
from worldmodel.codec.machine import machine
from worldmodel.codec.options import CodecOptions
from worldmodel.codec.reading import examine, read_header
from worldmodel.codec.tokens import CodedTokens, open_tokens, spec_of

Cut = tuple[TokenDrive, int, int]


@dataclass(frozen=True)
class Coded:
    """What a container holds, in numbers.

    Attributes:
        bits: cross entropy of all tokens under the scoring that coded them.
        code_bytes, action_bytes, file_bytes: the tokens' code, the actions, the whole file.
    """

    num_steps: int
    num_tokens: int
    num_segments: int
    bits: float
    code_bytes: int
    action_bytes: int
    file_bytes: int

    def __str__(self) -> str:
        per_token = 8 * self.code_bytes / self.num_tokens
        text = (
            f"{self.num_steps} steps in {self.num_segments} segments, {self.file_bytes} bytes: "
            f"{per_token:.4f} bits per token (cross entropy {self.bits / self.num_tokens:.4f})"
        )
        return text + (f", {self.action_bytes} bytes of actions" if self.action_bytes else "")


def compress(source: Path, out: Path, options: CodecOptions, cache: str = "data") -> None:
    """Code the tokens of a store or a .npy file into the container `out`.

    What is coded lies in a partial file beside `out`; the same command goes on after its last
    whole segment.

    Raises:
        BadInput: the tokens do not fit the model, `out` exists, or a value is out of range.
        OSError: the disk is full; the partial file stays.
    """
    out = writable_file("out", out)
    refuse_existing("out", out)
    opened()
    models = open_models(options.ckpts)
    found = open_tokens(source, models[0].spec if models else None, options.vocab, cache)
    for model in models:
        if found.store is not None:
            model.check_store(found.store)
    check_vocabulary(found.spec.vocab_size)
    arithmetic = "float" if models and options.arithmetic == "float" else EXACT
    slides = slides_of(models, options.slide_steps)
    predictor = predictor_of(models, options.floor_names, found.spec, arithmetic, slides)
    if predictor.reads_actions and not found.action_names:
        raise BadInput(f"{source}: holds no actions, which {models[0].path} reads; give its store")
    header = Header(
        schema=SCHEMA,
        source=found.described,
        spec=asdict(found.spec),
        action_names=found.action_names,
        predictors=describe_all(models, options.floor_names, slides),
        arithmetic=arithmetic,
        machine=machine() if arithmetic == "float" else {},
        segment_steps=options.segment_steps,
        parallel=options.parallel,
        coder=CODER,
    )
    _write(out, header, found, predictor)


def _write(out: Path, header: Header, found: CodedTokens, predictor: Predictor) -> None:
    """Write the partial file, from its last whole segment on, and rename it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    total = sum(drive.num_steps for drive in found.drives)
    with partial.open("ab") as file, tqdm(total=total, unit="step", desc=out.name) as bar:
        _lock(file, partial, out)
        done = _resumed(partial, file, header)
        writer = ContainerWriter(file, header, done)
        cuts = found.cuts(header.segment_steps)
        bar.update(sum(steps for _, _, steps in islice(cuts, done)))
        while group := list(islice(cuts, header.parallel)):
            for segment in code_group(predictor, found, group, bar.update):
                writer.add(segment)
        writer.end()
        partial.replace(out)


def code_group(
    predictor: Predictor, found: CodedTokens, group: Sequence[Cut], done: Any = lambda count: None
) -> Iterator[CodedSegment]:
    """The segments of some cuts, coded in lockstep."""
    tokens = [np.asarray(d.tokens[first : first + steps]) for d, first, steps in group]
    actions = [np.asarray(d.actions[first : first + steps]) for d, first, steps in group]
    given = actions if predictor.reads_actions else None
    codes, bits = encode(predictor, tokens, given, done)
    for (drive, first, steps), own, acting, code, cost in zip(
        group, tokens, actions, codes, bits, strict=True
    ):
        about = SegmentAbout(
            drive=drive.id,
            split=drive.split,
            first=first,
            steps=steps,
            tokens=tokens_digest(own),
            bits=round(cost, 3),  # log2 may differ in its last bit between machines
            meta={} if first else found.meta_of(drive),
        )
        yield CodedSegment(about, code, packed_actions(acting))


def tokens_digest(tokens: Integer[np.ndarray, "step *grid"]) -> str:
    return digest_of(tokens.astype("<i4").tobytes()).hex()


def packed_actions(actions: Float[np.ndarray, "step action"]) -> bytes:
    """Actions without loss: a byte of every number of a column, then the next byte; LZMA."""
    if not actions.size:
        return b""
    columns = np.ascontiguousarray(actions.T.astype("<f4"))
    planes = columns.view(np.uint8).reshape(*columns.shape, 4).transpose(0, 2, 1)
    return lzma.compress(planes.tobytes(), lzma.FORMAT_ALONE)


def unpacked_actions(content: bytes, steps: int, width: int) -> Float[np.ndarray, "step action"]:
    """The actions of `packed_actions`.

    Raises:
        BadInput: they are of another shape.
    """
    size = 4 * steps * width
    try:
        # One byte more than fits shows that it is longer; a bomb is not unpacked.
        planes = lzma.LZMADecompressor().decompress(content, size + 1) if content else b""
    except lzma.LZMAError as error:
        raise BadInput(f"its actions cannot be unpacked ({error})") from error
    if len(planes) != size:
        raise BadInput(f"its actions have {len(planes)} bytes, not {size}")
    columns = np.frombuffer(planes, np.uint8).reshape(width, 4, steps).transpose(0, 2, 1)
    return np.ascontiguousarray(columns).view("<f4")[..., 0].T.astype(np.float32)


def _lock(file: IO[bytes], partial: Path, out: Path) -> None:
    """BadInput where another process writes `out`, or has just written it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Renamed between opening and locking, the open file would be the finished container.
        is_ours = partial.exists() and os.path.samestat(partial.stat(), os.fstat(file.fileno()))
    except BlockingIOError:
        is_ours = False
    if not is_ours or out.exists():
        raise BadInput(f"out={out}: another process writes it; choose another name")


def _resumed(partial: Path, file: IO[bytes], header: Header) -> int:
    """The number of segments that an interrupted run left; the file then ends behind them."""
    done, stop = 0, 0
    try:
        if file.tell() and encoded(read_header(partial)[0]) == encoded(header):
            whole = examine(partial)
            # Groups are coded together: those begun are coded again.
            done = _leading(whole.segments) // header.parallel * header.parallel
            stop = whole.ends[done - 1] if done else 0
    except BadInput:  # the head of a file that another release began, or none
        done = stop = 0
    os.truncate(file.fileno(), stop)
    return done


def _leading(numbers: Any) -> int:
    """How many of 0, 1, 2 ... there are without a gap."""
    count = 0
    while count in numbers:
        count += 1
    return count


def measured(path: Path) -> Coded:
    """The numbers of a whole container; BadInput where it is damaged."""
    found = examine(path)
    if found.damage:
        raise BadInput(f"{path}: {found.damage[0]}")
    space = spec_of(read_header(path)[0]).tokens_per_step
    steps = sum(about.steps for about in found.segments.values())
    return Coded(
        num_steps=steps,
        num_tokens=steps * space,
        num_segments=len(found.segments),
        bits=sum(about.bits for about in found.segments.values()),
        code_bytes=found.code_bytes,
        action_bytes=found.action_bytes,
        file_bytes=path.stat().st_size,
    )
