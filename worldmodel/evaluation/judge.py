"""The work of eval.py: open checkpoint and data, run the cards, write result and report."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from drives.sources import DriveSource, trained_on
from drives.splits.base import CHOICES, of_split
from drives.splits.trained_clips import refuse_trained_clips
from tokenizer.evaluation import long_enough
from tokenizer.load import KIND as TOKENIZER
from tokenizer.load import PRETRAINED as TOKENIZERS
from tokenizer.load import Tokenizer, tokenizer_from
from tokenizer.losses.lpips import PerceptualDistance, load_lpips
from training.checkpoints.folder import OpenedCheckpoint, open_checkpoint
from training.checkpoints.parts import PARTS
from training.checkpoints.shipped import named, run_folder
from training.cli import plain
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.places import writable_folder
from training.disk.plain_json import finite, to_json
from training.errors import BadInput
from training.machine import compute_device, hardware
from training.ranges import at_least, one_of
from training.schemas import judged_settings
from worldmodel.decoding.config import sampling_from
from worldmodel.decoding.rollout import open_decoder
from worldmodel.evaluation.cards import kinds, reconstruction
from worldmodel.evaluation.cards.config import (
    CARDS,
    DEFAULT,
    Card,
    ControlCard,
    ReconstructionCard,
)
from worldmodel.evaluation.cards.result import Result
from worldmodel.evaluation.evidence import DRIVES, data_source, evidence_of
from worldmodel.evaluation.provenance.trained_clips import refuse_trained
from worldmodel.evaluation.report.page import write_report
from worldmodel.evaluation.report.terminal import table_of
from worldmodel.evaluation.subject import Decoded, JudgedModel
from worldmodel.load import PRETRAINED, world_model_from

METRICS, CLIPS, REPORT = "metrics.json", "clips.json", "report.html"
WORLD_MODEL, OCCUPANCY = "worldmodel", "occupancy"
Findings = dict[str, Any]


def judge(cfg: DictConfig, decoded: Decoded | None = None) -> Path:
    """Evaluate `cfg.ckpt` into `cfg.out`, where it replaces an older evaluation.

    Args:
        decoded: clips of other checkpoints' evaluations; new ones are added.
    """
    check_settings(cfg)
    device = compute_device(cfg.device)
    opened = open_checkpoint(named(cfg.ckpt, PRETRAINED, "ckpt"))
    kind = judged_kind(opened.manifest, plain(cfg))
    usual_out, opened = _usual_out(opened.manifest, kind), opened.part(kind)
    checkpoint, manifest = opened.path, opened.manifest
    network = manifest.get("network")
    samples_future = isinstance(network, dict) and network.get("name") == OCCUPANCY
    usual = OCCUPANCY if samples_future else kind
    cards = chosen_cards(plain(cfg), kind, checkpoint, usual)
    if cfg.video_decoder is not None and kind == WORLD_MODEL:
        _check_decodes(cards, cfg.video_decoder)
    home = run_folder(checkpoint, cfg.paths.runs, PRETRAINED, TOKENIZERS)
    out = home / usual_out if cfg.out is None else cfg.out
    out = writable_folder("out", out)
    if out.exists() and not (out / METRICS).exists():
        raise BadInput(f"out={out}: exists and is no evaluation of ours; choose another folder")
    ask = (
        _of_tokenizer(opened, cfg, cards, device)
        if kind == TOKENIZER
        else _of_world_model(opened, cfg, cards, device, {} if decoded is None else decoded)
    )
    del opened  # the network holds its weights now
    sweep_leftovers(out.parent)
    with written_whole(out) as partial:
        partial.mkdir()
        facts = {
            "checkpoint": str(checkpoint),
            "step": manifest.get("step"),
            "kind": kind,
            "split": cfg.split,
            "hardware": hardware(),
        }
        facts |= finite(ask(partial))
        clips = facts.pop("values", {})
        (partial / METRICS).write_text(to_json(facts) + "\n")
        (partial / CLIPS).write_text(to_json(clips) + "\n")
        write_report(partial, facts, manifest, plain(cfg))
        shutil.rmtree(out, ignore_errors=True)
    if cfg.wandb:
        from worldmodel.evaluation.report import to_wandb  # wandb and lightning load here

        to_wandb.send(facts, manifest, home, out)
    print(f"\n{table_of(facts['cards'])}")
    for file in sorted(out.iterdir()):
        print(f"  {file}")
    return out


def judged_kind(manifest: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """What is judged: of what was trained together the world model, or what the cards are for."""
    if PARTS in manifest:
        cards = judged_settings(values.get("cards") or {}, "cards").values()
        return next((card.kind for card in cards), WORLD_MODEL)
    return TOKENIZER if manifest.get("kind") == TOKENIZER else WORLD_MODEL


def _usual_out(manifest: Mapping[str, Any], kind: str) -> str:
    """In the run's folder; of what was trained together, no part replaces the other's."""
    return f"eval_{kind}" if PARTS in manifest and kind != WORLD_MODEL else "eval"


def check_settings(cfg: DictConfig) -> None:
    """BadInput where a setting of the evaluation is out of its range."""
    one_of(CHOICES, split=cfg.split)
    at_least(1, batch_size=cfg.batch_size)


def chosen_cards(
    values: Mapping[str, Any], kind: str, checkpoint: Path, usual: str | None = None
) -> list[Card]:
    """The cards of the command line, or the default ones of this kind of checkpoint.

    Args:
        usual: whose default ones, where not those of the kind.

    Raises:
        BadInput: a card for another kind, or a changed card under a published version.
    """
    asked = judged_settings(values.get("cards") or {}, "cards")
    cards = list(asked.values()) or [CARDS[name]() for name in DEFAULT[usual or kind]]
    for card in cards:
        if card.kind != kind:
            fitting = ", ".join(name for name, other in CARDS.items() if other.kind == kind)
            raise BadInput(
                f"card={card.name}: is for a {card.kind}, and {checkpoint} is a {kind}; choose of "
                f"{fitting}"
            )
        card.check_version()
    return cards


def _check_decodes(cards: list[Card], path: str) -> None:
    """BadInput where no card shows frames of a video decoder."""
    if not any(card.decodes for card in cards):
        asked = ", ".join(card.name for card in cards)
        fitting = ", ".join(name for name, card in CARDS.items() if card.decodes)
        raise BadInput(
            f"video_decoder={path}: card={asked} shows none of its frames; leave it out, or ask "
            f"one of {fitting} too"
        )


def _of_world_model(
    opened: OpenedCheckpoint, cfg: DictConfig, cards: list[Card], device: str, decoded: Decoded
) -> Callable[[Path], Findings]:
    model = world_model_from(opened)
    strided = all(card.strides for card in cards)
    evidence = evidence_of(model, plain(cfg.data.source), cfg.tokenizer, strided)
    refuse_trained([model], evidence, cfg.split, cfg.allow_train)
    evidence = evidence.decoded_by(cfg.video_decoder, plain(cfg.video), device)
    subject = JudgedModel(
        model,
        evidence,
        cfg.split,
        device,
        sampling=sampling_from(plain(cfg.sampling)),
        decoding=plain(cfg.decoding),
        batch_size=cfg.batch_size,
        attainable=_path(cfg.attainable),
        lpips_weights=_path(cfg.lpips_weights),
        i3d_weights=_path(cfg.i3d_weights),
        inception_weights=_path(cfg.inception_weights),
        decoded=decoded,
    )
    if subject.attainable and not any(isinstance(card, ControlCard) for card in cards):
        raise BadInput(f"attainable={subject.attainable}: only card=control reads it; ask that too")
    open_decoder(subject.network, subject.sampling, **subject.decoding)
    for card in cards:
        kinds.check(subject, card, asked="cards" in cfg)

    def ask(out: Path) -> Findings:
        subject.out = out
        found = {card.name: (card, kinds.measure(subject, card)) for card in cards}
        said = {"sampling": asdict(subject.sampling), "decoding": dict(subject.decoding)}
        if evidence.video is not None:
            said["video_decoder"] = {"checkpoint": str(evidence.video.path), **plain(cfg.video)}
        return said | {"data": evidence.store.hash, **_written(found)}

    return ask


def _written(found: Mapping[str, tuple[Card, Result]]) -> Findings:
    cards = {
        name: {"version": card.version, "hash": card.hash, **result.plain()}
        for name, (card, result) in found.items()
    }
    values = {
        name: {"names": result.names, "drives": result.drives, "values": result.values}
        for name, (_, result) in found.items()
    }
    return {"cards": cards, "values": values}


def _of_tokenizer(
    opened: OpenedCheckpoint, cfg: DictConfig, cards: list[Card], device: str
) -> Callable[[Path], Findings]:
    checkpoint, manifest, _ = opened
    if cfg.video_decoder is not None:
        raise BadInput(
            f"video_decoder={cfg.video_decoder}: shows what a world model predicts, and "
            f"{checkpoint} is a tokenizer; run python -m worldmodel.video_decoder"
        )
    source = data_source(manifest, _or_embedded(manifest, cfg, checkpoint), checkpoint)
    if not isinstance(source, DriveSource):
        raise BadInput(f"{checkpoint}: a tokenizer is evaluated on drives; give data.root=FOLDER")
    drives = of_split(source.open(needed=cfg.split), cfg.split, str(source.folder))
    allow = cfg.allow_train
    refuse_trained_clips(manifest, checkpoint, cfg.split, drives=drives, allow=allow)
    tokenizer = tokenizer_from(opened)
    long_enough(drives, tokenizer.clip_frames)  # refuses before anything is written
    (card,) = cards
    assert isinstance(card, ReconstructionCard)
    perceptual = _lpips_for(tokenizer, card.lpips_net, _path(cfg.lpips_weights), device)

    def ask(out: Path) -> Findings:
        result = reconstruction.measure(tokenizer, drives, perceptual, device, card, out)
        return _written({card.name: (card, result)})

    return ask


def _or_embedded(manifest: dict[str, Any], cfg: DictConfig, checkpoint: Path) -> dict[str, Any]:
    """Data for a tokenizer: as named, else the embedded drives, because any frames do."""
    data = plain(cfg.data.source)
    trained = trained_on(manifest, str(checkpoint))
    if trained or data.get("root") or data.get("_target_"):
        return data
    print(
        f"{checkpoint}: names no data and is judged on the embedded CarRacing drives; "
        "data.root=FOLDER takes others"
    )
    return {**data, "_target_": DRIVES}


def _lpips_for(
    tokenizer: Tokenizer, net: str, weights: Path | None, device: str
) -> PerceptualDistance | None:
    perceptual = load_lpips(net, weights)
    height, width = tokenizer.network.config.image_size
    if min(height, width) < perceptual.min_side:
        print(
            f"LPIPS is left out: its frames are {height}x{width} pixels, and lpips_net={net} "
            f"needs {perceptual.min_side} on each side"
        )
        return None
    return perceptual.to(device)


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None
