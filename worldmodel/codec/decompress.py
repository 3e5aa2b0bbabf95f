"""A container back into its tokens, exactly; or a refusal."""

from collections.abc import Generator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

from drives.tokens.spec import frame_shape
from training.disk.places import refuse_existing, writable_file, writable_folder
from training.errors import BadInput
from worldmodel.codec.coder import CODER, check_vocabulary, decode
from worldmodel.codec.compress import tokens_digest, unpacked_actions
from worldmodel.codec.container import CodedSegment, Header
from worldmodel.codec.distributions.models import models_of, predictor_of
from worldmodel.codec.distributions.network import CACHES
from worldmodel.codec.distributions.predictors import Predictor
from worldmodel.codec.machine import refuse_other
from worldmodel.codec.reading import Found, examine, read_header, segments_of
from worldmodel.codec.tokens import NpySink, Piece, Sink, StoreSink, spec_of

Numbered = tuple[int, CodedSegment]


def decompress(
    path: Path, out: Path, ckpts: Sequence[str], parallel: int | None = None, recover: bool = False
) -> list[str]:
    """Decode a container to a token store or a .npy file, whatever it was.

    Args:
        parallel: segments that are decoded at once; None: as many as were coded at once.
        recover: decode the whole segments of a damaged container.

    Returns:
        Lines that say what was written, and what is lost.

    Raises:
        BadInput: the container is damaged, of a newer release, was coded by another model, or in
            floating point on another machine; `out` exists. Nothing is written.
    """
    header, found = read_header(path)[0], examine(path)
    if found.damage and not recover:
        raise BadInput(f"{path}: {'; '.join(found.damage)}; --recover decodes the whole segments")
    if not found.segments:
        raise BadInput(f"{path}: holds no whole segment; use another copy")
    is_npy = header.source.get("kind") == "npy"
    out = writable_file("out", out) if is_npy else writable_folder("out", out)
    refuse_existing("out", out)
    predictor = _predictor(path, header, ckpts)
    size = parallel or header.parallel
    if header.arithmetic == "float" and size != header.parallel:
        raise BadInput(
            f"parallel={size}: {path} was coded in floating point, {header.parallel} segments at "
            "once; leave --parallel out"
        )
    groups = _groups(path, header, found, size)
    steps = sum(found.segments[number].steps for number in groups)
    sink: Sink = NpySink(header, steps) if is_npy else StoreSink(header)
    with tqdm(total=steps, unit="step", desc=out.name) as bar:
        written = sink.save(out, _pieces(path, header, predictor, groups, bar))
    lost = sorted(set(found.segments) - set(groups))
    told = [f"not decodable without its neighbours: {found.segments[n].name}" for n in lost]
    return [f"{out}: {written}", *found.damage, *told]


def _predictor(path: Path, header: Header, ckpts: Sequence[str]) -> Predictor:
    """What coded the container; BadInput unless it can decode here."""
    if header.coder != CODER:
        raise BadInput(f"{path}: was coded by {header.coder!r}; this release has {CODER!r}")
    if header.arithmetic == "float":
        refuse_other(header.machine, path)
    elif header.arithmetic not in CACHES:
        raise BadInput(
            f"{path}: was coded in arithmetic {header.arithmetic!r}; this release has "
            f"{', '.join(CACHES)}"
        )
    models, floors, slides = models_of(header.predictors, ckpts, str(path))
    spec = spec_of(header)
    check_vocabulary(spec.vocab_size)
    for model in models:
        if (model.spec.grid, model.spec.vocab_size) != (spec.grid, spec.vocab_size):
            raise BadInput(f"{model.path}: reads other tokens than {path} holds; give its model")
    return predictor_of(models, floors, spec, header.arithmetic, slides)


def _groups(path: Path, header: Header, found: Found, size: int) -> dict[int, int]:
    """Which group every segment that can be decoded belongs to, by its number."""
    if header.arithmetic != "float":
        return {number: place // size for place, number in enumerate(sorted(found.segments))}
    # What floats give a segment depends on those beside it.
    groups = {number: number // size for number in sorted(found.segments)}
    last = max(groups.values())
    counts = [list(groups.values()).count(group) for group in range(last + 1)]
    whole = {group for group, count in enumerate(counts) if count == size}
    if not found.damage:
        whole.add(last)
    return {number: group for number, group in groups.items() if group in whole}


def _pieces(
    path: Path, header: Header, predictor: Predictor, groups: dict[int, int], bar: tqdm
) -> Generator[Piece, None, None]:
    """Decode groups of segments, in the order of the file."""
    wanted = (numbered for numbered in segments_of(path) if numbered[0] in groups)
    shape, width = frame_shape(spec_of(header)), len(header.action_names)
    for _, group in groupby(wanted, key=lambda numbered: groups[numbered[0]]):
        segments = [segment for _, segment in group]
        where = f"{path}: {segments[0].about.name} and those beside it"
        try:
            actions = [unpacked_actions(s.actions, s.about.steps, width) for s in segments]
            given = actions if predictor.reads_actions else None
            lengths, codes = [s.about.steps for s in segments], [s.code for s in segments]
            tokens = decode(predictor, codes, lengths, shape, given, bar.update)
        except BadInput as error:
            raise BadInput(f"{where}: {error}; is it the model that coded it?") from error
        for segment, own, acting in zip(segments, tokens, actions, strict=True):
            if tokens_digest(own) != segment.about.tokens:
                raise BadInput(
                    f"{path}: {segment.about.name} decoded to other tokens than were coded; "
                    "nothing is written. Decode it where it was coded, and report this"
                )
            yield segment.about, np.asarray(own), acting
