"""Refuses clips that a world model or its tokenizer was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drives.splits.trained_clips import ALLOW, refuse_trained_clips
from tokenizer.encode import TOKENIZER_NOTE
from training.checkpoints.provenance import provenance_of
from worldmodel.evaluation.evidence import Evidence
from worldmodel.load import WorldModel

SWITCH = "--allow-train"  # of the commands that have options


def refuse_trained(
    models: Sequence[WorldModel],
    evidence: Evidence,
    split: str,
    allow: bool = False,
    switch: str = ALLOW,
) -> None:
    """Called by every evaluation before it computes; arguments as `refuse_trained_clips`.

    A tokenizer without a record of its training passes in silence, as all published ones.

    Raises:
        BadInput: a model or the tokenizer was trained on a drive of the split.
    """
    shown = (split, evidence.store, evidence.drives, allow, switch)
    for model in models:
        refuse_trained_clips(model.manifest, model.path, *shown)
    for model in models[:1]:
        origin = _tokenizer_origin(model, evidence)
        if origin is not None:
            where = Path(f"tokenizer {str(origin['weights'])[:12]}")
            refuse_trained_clips({"run": origin["data"] | origin}, where, *shown)


def _tokenizer_origin(model: WorldModel, evidence: Evidence) -> dict[str, Any] | None:
    """Provenance of the tokens' tokenizer; None without a record of its footage."""
    found = [
        evidence.store.manifest.get("notes", {}).get(TOKENIZER_NOTE),
        model.manifest.get("run", {}).get("tokenizer"),
    ]
    if evidence.tokenizer is not None:
        found.insert(0, provenance_of(evidence.tokenizer.manifest))
    return next((one for one in found if one and one.get("train_footage") is not None), None)
