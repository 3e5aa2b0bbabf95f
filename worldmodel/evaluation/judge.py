"""eval.py's work: open the checkpoint and its data, measure, write card and report."""

import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from drives.sources import DriveSource, trained_on
from drives.splits.base import of_split
from tokenizer.evaluation import evaluate_tokenizer, long_enough
from tokenizer.load import KIND as TOKENIZER
from tokenizer.load import Tokenizer, tokenizer_from
from tokenizer.losses.lpips import PerceptualDistance, load_lpips
from training.checkpoints.folder import OpenedCheckpoint, open_checkpoint
from training.cli import plain
from training.disk.leftovers import sweep_leftovers, written_whole
from training.disk.places import writable_folder
from training.disk.plain_json import finite, to_json
from training.errors import BadInput
from training.machine import compute_device
from training.pages.html_page import shown
from worldmodel.decoding import Guidance, Sampling
from worldmodel.evaluation.card import EvalConfig, evaluate
from worldmodel.evaluation.evidence import DRIVES, data_source, evidence_of
from worldmodel.evaluation.provenance.trained_clips import refuse_trained_clips
from worldmodel.evaluation.report import write_report
from worldmodel.load import world_model_from


def judge(cfg: DictConfig) -> None:
    """Evaluate `cfg.ckpt` into `cfg.out`; an older evaluation there is replaced when done."""
    config, device = eval_config(cfg), compute_device(cfg.device)
    opened = open_checkpoint(Path(cfg.ckpt))
    checkpoint, manifest = opened.path, opened.manifest
    out = _run_folder(checkpoint) / "eval" if cfg.out is None else cfg.out
    out = writable_folder("out", out)
    if out.exists() and not (out / "metrics.json").exists():
        raise BadInput(f"out={out}: exists and is no evaluation of ours; choose another folder")
    if manifest.get("kind") == TOKENIZER:
        measure = _tokenizer_card(opened, cfg, device)
    else:
        measure = _world_model_card(opened, cfg, config, device)
    del opened  # its weights are the network's now
    sweep_leftovers(out.parent)
    with written_whole(out) as partial:
        partial.mkdir()
        facts = {"checkpoint": str(checkpoint), "step": manifest.get("step")}
        card = finite(facts | measure(partial))
        (partial / "metrics.json").write_text(to_json(card) + "\n")
        write_report(partial, card, manifest, plain(cfg))
        shutil.rmtree(out, ignore_errors=True)
    _tell(out, card)


def _tokenizer_card(opened: OpenedCheckpoint, cfg: DictConfig, device: str) -> Any:
    checkpoint, manifest, _ = opened
    source = data_source(manifest, _or_embedded(manifest, cfg, checkpoint), checkpoint)
    if not isinstance(source, DriveSource):
        raise BadInput(f"{checkpoint}: a tokenizer is evaluated on drives; give data.root=FOLDER")
    drives = of_split(source.open(needed=cfg.split), cfg.split, str(source.folder))
    allow = cfg.allow_train
    refuse_trained_clips(manifest, checkpoint, cfg.split, drives=drives, allow=allow)
    tokenizer = tokenizer_from(opened)
    long_enough(drives, tokenizer.clip_frames)  # refuses before anything is written
    perceptual = _lpips_for(tokenizer, cfg, device)
    return lambda out: {
        "kind": TOKENIZER,
        "split": cfg.split,
        "reconstruction": evaluate_tokenizer(tokenizer, drives, perceptual, device, out=out),
    }


def _or_embedded(manifest: dict[str, Any], cfg: DictConfig, checkpoint: Path) -> dict[str, Any]:
    """The data chosen for a tokenizer: any frames do, so the embedded ones where none are named."""
    data = plain(cfg.data.source)
    trained = trained_on(manifest, str(checkpoint))
    if trained or data.get("root") or data.get("_target_"):
        return data
    print(
        f"{checkpoint}: names no data and is judged on the embedded CarRacing drives; "
        "data.root=FOLDER takes others"
    )
    return {**data, "_target_": DRIVES}


def _lpips_for(tokenizer: Tokenizer, cfg: DictConfig, device: str) -> PerceptualDistance | None:
    perceptual = load_lpips(cfg.lpips_net, _path(cfg.lpips_weights))
    height, width = tokenizer.network.config.image_size
    if min(height, width) < perceptual.min_side:
        print(
            f"LPIPS is left out: its frames are {height}x{width} pixels, and lpips_net="
            f"{cfg.lpips_net} needs {perceptual.min_side} on each side"
        )
        return None
    return perceptual.to(device)


def _world_model_card(
    opened: OpenedCheckpoint, cfg: DictConfig, config: EvalConfig, device: str
) -> Any:
    model = world_model_from(opened)
    evidence = evidence_of(model, plain(cfg.data.source), cfg.tokenizer)
    store, drives, allow = evidence.store, evidence.drives, cfg.allow_train
    refuse_trained_clips(opened.manifest, opened.path, config.split, store, drives, allow)
    return lambda out: {"kind": "worldmodel", **evaluate(model, evidence, config, out, device)}


def eval_config(cfg: DictConfig) -> EvalConfig:
    """The settings of the evaluation; BadInput where one is out of its range."""
    settings = {
        key: value
        for key, value in plain(cfg).items()
        if key in EvalConfig.__dataclass_fields__ and key not in ("sampling", "lpips_weights")
    }
    return EvalConfig(
        **settings,
        lpips_weights=_path(cfg.lpips_weights),
        sampling=sampling_from(plain(cfg.sampling)),
    )


def sampling_from(values: dict[str, Any]) -> Sampling:
    """The settings of a config, which is never instantiated freely; null is the default."""
    own, guidance = (
        {k: v for k, v in part.items() if k not in ("_target_", "guidance") and v is not None}
        for part in (values, values.get("guidance") or {})
    )
    return Sampling(**own, guidance=Guidance(**guidance))


def _run_folder(checkpoint: Path) -> Path:
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _tell(out: Path, card: dict[str, Any]) -> None:
    """What a person wants to know first."""
    print()
    if card["kind"] == TOKENIZER:
        for name, value in card["reconstruction"].items():
            print(f"  {name:24} {shown(value)}")
    else:
        bits = card["teacher_forced"]["bits_per_token"]
        print(
            f"  cross entropy  {shown(bits, '.3f')} bits per token "
            f"(teacher-forced, {card['split']})"
        )
        for name, floor in card["floors"].items():
            print(f"    floor {name:18} {shown(floor['bits_per_token'], '.3f')}")
        for name, scores in card["pixels"].get("mean", {}).items():
            line = "  ".join(f"{k} {shown(v, '.3f')}" for k, v in scores.items())
            print(f"  {name:26} {line}")
        for direction in ("left", "straight", "right"):
            if "steering" in card:
                motion = card["steering"][direction]["motion_px_per_frame"]
                print(f"  steer {direction:9} scene moves {shown(motion, '+.2f')} px per frame")
    for file in sorted(out.iterdir()):
        print(f"  {file}")
