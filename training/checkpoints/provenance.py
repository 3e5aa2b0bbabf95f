"""Provenance of a checkpoint: code, data, split, licences, and its tokenizer."""

from collections.abc import Mapping
from typing import Any

from training.checkpoints.manifests import weights_hash

CODE = ("git", "code", "python", "torch", "lightning", "hardware")
DATA = ("data_hash", "split_hash", "num_drives", "validated_on", "licences")


def provenance_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance from a manifest, as plain values; null where an older release wrote none.

    `code.code` is a hash of our sources, `data.data_hash` of every byte of the drives,
    `data.split_hash` of which footage is in which split. `train_footage` lists the train drives as
    `drives.splits.footage` does, with those of the weights that it began with, whose own provenance
    is `init_from`. `published` is set for weights that others trained.
    """
    run, config = manifest.get("run", {}), manifest.get("config") or {}
    found: dict[str, Any] = {
        "kind": manifest.get("kind"),
        "weights": weights_hash(manifest),
        "step": manifest.get("step"),
        "command": run.get("command"),
        "code": {name: run.get(name) for name in CODE},
        "data": {"root": (config.get("data") or {}).get("root")}
        | {name: run.get(name) for name in DATA},
        "train_footage": run.get("train_footage"),
    }
    if run.get("init_from"):
        found["init_from"] = run["init_from"]
    if manifest.get("published"):
        found["published"] = manifest["published"]
    if hash_ := (manifest.get("spec") or {}).get("tokenizer"):
        found["tokenizer"] = run.get("tokenizer") or {"weights": hash_}
    return found
