"""Hashes of a checkpoint's weights, code, data and split, its licences, and its tokenizer's."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizer.load import load_tokenizer
from training.checkpoints.folder import check_weights, find_checkpoint
from training.checkpoints.manifests import read_manifest
from training.checkpoints.provenance import provenance_of
from training.checkpoints.shipped import named
from training.errors import BadInput
from training.pages.wording import counted
from worldmodel.evaluation.evidence import trained_on
from worldmodel.load import PRETRAINED

LIST = "train_footage"  # too long to print


def provenance(path: Path) -> dict[str, Any]:
    """The chain of a run folder's newest checkpoint, a checkpoint folder or a shipped world model.

    A world model's `tokenizer` is as its token store noted. If an older store noted none, the
    tokenizer of the config is opened, provided it is at hand and its hash fits.

    Raises:
        BadInput: no checkpoint is there, or it was altered.
    """
    folder = find_checkpoint(named(path, PRETRAINED, "ckpt"))
    check_weights(folder)  # a hash in the manifest counts only if its file has it
    manifest = read_manifest(folder)
    found = {"checkpoint": str(folder), **provenance_of(manifest)}
    tokenizer = found.get("tokenizer")
    if tokenizer and "code" not in tokenizer:
        found["tokenizer"] = _named_tokenizer(manifest, folder) or tokenizer
    return found


def _named_tokenizer(manifest: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    name = trained_on(manifest, folder).tokenizer
    try:
        opened = load_tokenizer(name) if name else None
    except BadInput:  # of another machine
        return None
    if opened is None or manifest["spec"]["tokenizer"] not in opened.known_as:
        return None
    return provenance_of(opened.manifest)


def lines(found: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """The chain as text, one fact a line; a dash is unknown."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}"
            yield from lines(value, f"{indent}  ")
        elif name == LIST:
            known = "-" if value is None else f"{counted(len(value), 'drive')} (--json lists them)"
            yield f"{indent}{name:14} {known}"
        else:
            yield f"{indent}{name:14} {'-' if value is None else value}"
