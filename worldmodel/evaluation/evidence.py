"""The data of an evaluation: one answer for eval, bench, table and rollout.

A run names its training data. A published model names none, so the command line does. The kind of
`data.root` is recognised by its content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from drives.config import existing_root
from drives.drive import Drive
from drives.importers.tokens.formats import recognised_format
from drives.mixture import MixtureSource
from drives.sources import (
    DriveSource,
    TokenSource,
    class_name,
    source_from_dict,
    without_targets,
)
from drives.sources import trained_on as source_of_training
from drives.tokens.store import TokenStore
from tokenizer.config import EncodeConfig
from tokenizer.encode import encoded_versions
from tokenizer.load import Tokenizer, load_tokenizer
from training.checkpoints.folder import MANIFEST
from training.disk.judging import judged
from training.errors import BadInput
from worldmodel.known_entropy.source import KnownEntropySource
from worldmodel.load import TRAINED_TOGETHER, WorldModel
from worldmodel.stores import open_store
from worldmodel.video_decoder.config import VideoDecodingConfig
from worldmodel.video_decoder.decoder import TokenVideoDecoder
from worldmodel.video_decoder.load import video_decoder_for

source_of = partial(source_from_dict, more=(KnownEntropySource, MixtureSource))
DRIVES, TOKENS = DriveSource.__name__, TokenSource.__name__


@dataclass(frozen=True)
class Evidence:
    """Tokens, drives and tokenizer; without the latter two there are no pixels.

    Attributes:
        drives: those that were encoded; ids and first frames are as in the store.
        every: frames per kept frame when the drives were encoded.
        video: makes the frames of tokens in place of the tokenizer's own decoder.
    """

    store: TokenStore
    drives: Sequence[Drive] = ()
    tokenizer: Tokenizer | None = None
    every: int = 1
    video: TokenVideoDecoder | None = None

    def decoded_by(self, path: str | None, how: Mapping[str, Any], device: str) -> "Evidence":
        """The same, its frames made by a video decoder, if one is named.

        Args:
            path, how: `video_decoder` and `video` of a command line.

        Raises:
            BadInput: as `video_decoder_for`.
        """
        fps, settings = self.store.spec.fps, VideoDecodingConfig(**how)
        return replace(self, video=video_decoder_for(path, self.tokenizer, fps, settings, device))


def evidence_of(
    model: WorldModel, data: Mapping[str, Any], tokenizer: str | None, strided: bool = False
) -> Evidence:
    """Opens the data of `data_source` as tokens that the model reads.

    Args:
        data: `data.source` of a command line.
        tokenizer: of the tokens; None: the one of the training, if any.
        strided: of a frame per time step, frames are taken at the model's rate; else a store of
            another rate gets a warning.

    Raises:
        BadInput: as `data_source`; drives without a tokenizer, or tokens of another one.
    """
    trained = trained_on(model.manifest, model.path)
    source = data_source(model.manifest, data, model.path)
    encode, name = trained.encode, tokenizer or trained.tokenizer
    if isinstance(source, DriveSource):
        if not name:
            raise BadInput(
                f"{model.path}: is a published model, and drives are no tokens yet; give "
                f"tokenizer=FOLDER, {model.spec.tokenizer}'s converted by tokenizer.convert"
            )
        opened = load_tokenizer(name)
        if model.spec.tokenizer not in opened.known_as:
            raise BadInput(
                f"ckpt={model.path}: was trained on tokens of tokenizer "
                f"{model.spec.tokenizer[:12]}, but {name} is {opened.hash[:12]}; give tokenizer=RUN"
            )
        if source.actions is None and model.action_names:
            # What is taken by default may have changed since: clocks were actions once.
            source = replace(source, actions=model.action_names)
        drives = source.open()
        # Cutting the sides is noted, not refused: an evaluation may, a training would learn it.
        encode = replace(encode, fit="cover")
        store = open_store(source, name, encode, opened=opened, drives=drives)
        taken = encoded_versions(drives, store.columns, encode)
        evidence = Evidence(store, taken, opened, encode.every)
    else:
        store = source.open()
        evidence = Evidence(store, tokenizer=_tokenizer_of(store, tokenizer, name))
    model.check_store(evidence.store, evidence.tokenizer)
    if not strided or evidence.store.spec.grid[0] > 1:
        _compare_rates(model, evidence.store)
    return evidence


def data_source(
    manifest: Mapping[str, Any], data: Mapping[str, Any], where: Path
) -> DriveSource | TokenSource:
    """The data that the command line names, or the checkpoint's training data.

    Args:
        data: a whole source (`data=commavq data.root=...`), or its root alone: its content then
            tells the kind, and the rest is as in training.
        where: the checkpoint, for messages.

    Raises:
        BadInput: neither names data, or the root is missing.
    """
    says = f"{where / MANIFEST}: config.data.source"
    trained = source_of_training(manifest, str(where / MANIFEST))
    root = data.get("root")
    if data.get("_target_"):
        if not root and class_name(data) == TOKENS:
            raise BadInput(f"data.root={root}: give the folder or file of the tokens")
        return source_of(dict(data))
    if root is None:
        if trained is None:
            raise BadInput(
                f"{where}: is a published model, which names no data; give data.root=PATH (a token "
                "store, commaVQ's files, or drives with tokenizer=FOLDER)"
            )
        if class_name(trained) == DRIVES:  # a shipped model names no cache: the command line's
            trained = {k: v for k, v in data.items() if k == "cache"} | trained
        return source_of(trained, says)
    if trained is not None and not Path(root).exists():
        return source_of(_elsewhere(trained, root), says)  # its own message says what is missing
    found = recognised(Path(root))
    like = (class_name(trained), (trained or {}).get("format"))
    if trained is not None and like == (found["_target_"], found.get("format")):
        return source_of(_elsewhere(trained, root), says)
    cache = (trained or {}).get("cache") or data.get("cache") or "data"
    return source_of({**found, "root": root, "cache": cache})


def _elsewhere(trained: Mapping[str, Any], root: str) -> dict[str, Any]:
    """The training's source at another root, without its splits, which are of its own drives."""
    values = {**trained, "root": root}
    if values.get("splits") and root != trained.get("root"):
        print(
            f"note: {root}: is not what {values['splits']} splits; its own drive.json decide, or "
            "give data=drives data.source.splits=FILE"
        )
        values["splits"] = None
    return values


def recognised(root: Path) -> dict[str, str]:
    """The source at `root`: a token store, files of commaVQ or 1X, or else drives.

    Raises:
        BadInput: nothing is there.
    """
    existing_root(root)
    if root.is_dir() and any(root.glob("*.arrow")):
        return {"_target_": TOKENS, "format": "store"}
    format = recognised_format(root)
    return {"_target_": TOKENS, "format": format} if format else {"_target_": DRIVES}


@dataclass(frozen=True)
class Trained:
    """The training data as a run's config names it; nothing for a published model."""

    encode: EncodeConfig = field(default_factory=EncodeConfig)
    tokenizer: str | None = None


def trained_on(manifest: Mapping[str, Any], path: Path) -> Trained:
    """Reads it; BadInput where the config of a checkpoint has another form."""
    says = f"{path / MANIFEST}: config.data"
    data = (manifest.get("config") or {}).get("data", {})
    if not isinstance(data, dict):
        raise BadInput(f"{says}={str(data)[:60]}: should be an object")
    known = {key: data[key] for key in ("encode", "tokenizer") if key in data}
    if (manifest.get("spec") or {}).get("tokenizer") == TRAINED_TOGETHER:
        known["tokenizer"] = str(path)
    return judged(Trained, without_targets(known), says)


def _tokenizer_of(store: TokenStore, given: str | None, trained: str | None) -> Tokenizer | None:
    """The tokenizer of a store: as given, or the training's if it made the tokens."""
    if given:
        return load_tokenizer(given)
    try:
        opened = load_tokenizer(trained) if trained else None
    except BadInput:  # named by a run of another machine; the tokens alone are judged
        return None
    return opened if opened and store.spec.tokenizer in opened.known_as else None


def _compare_rates(model: WorldModel, store: TokenStore) -> None:
    ours, theirs = (spec.fps / spec.frames_per_step for spec in (model.spec, store.spec))
    if abs(ours / theirs - 1) > 0.01:
        print(
            f"warning: {store.root} has {theirs:g} token steps per second, {model.path} was made "
            f"for {ours:g}"
        )
