"""The store's folder for given drives and settings; a hash of both is in its name."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drives.drive import Drive
from drives.sources import dates_hash, drives_hash
from drives.tokens.manifest import read_store_manifest
from drives.tokens.spec import TokenSpec
from drives.tokens.writer import TokenStoreWriter
from tokenizer.inference.config import AS_TRAINED, InferenceConfig
from tokenizer.inference.frame_encoder import name_of
from training.errors import BadInput


def store_folder(
    folder: Path,
    name: str,
    spec: TokenSpec,
    drives: Sequence[Drive],
    action_names: Sequence[str],
    inference: InferenceConfig,
    every: int,
) -> Path:
    """Path of the store of these drives: below `folder`, named `name` and a key.

    The key does not depend on paths: moved or copied drives keep their store.
    """
    parts = [asdict(spec), drives_hash(drives), list(action_names), asdict(inference), every]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    new = folder / f"{name}-{spec.tokenizer[:8]}-{key}"
    before = folder / f"{name}-{spec.tokenizer[:8]}-{dates_hash(drives)[:8]}-{every}"
    for found in (new, *sorted(folder.glob(f"*-{spec.tokenizer[:8]}-{key}")), before):
        if _is_store_of(found, spec, action_names, inference):
            return found
    others = sorted(folder.glob(f"{name}-{spec.tokenizer[:8]}-*"))
    if others and not new.exists():
        print(
            f"note: {new}: to be made, for the drives, actions or encode settings are not those "
            f"of {others[0].name}{', ...' if len(others) > 1 else ''}"
        )
    return new


def check_kept(writer: TokenStoreWriter, drives: Sequence[Drive], on_gap: str) -> None:
    """BadInput where a drive in the store would need to be encoded again.

    That is: the drive or its split changed, or it has gaps and `on_gap` is "stop".
    """
    for drive in drives:
        entry = writer.manifest["drives"].get(drive.id)
        if entry is None:
            continue
        meta = entry.get("meta", {})
        same = meta.get("drive_sha256", drive.digest) == drive.digest
        if not same or entry["split"] != drive.split:
            raise BadInput(
                f"{writer.root}: holds {drive.id} as it was before {drive.path} or its split "
                f"({entry['split']}, now {drive.split}) changed; nothing is overwritten, choose "
                "another folder"
            )
        if on_gap == "stop" and meta.get("dropped_frames"):
            raise BadInput(
                f"{writer.root}: holds {drive.id}, which has dropped frames; leave it out, or "
                "give on_gap=warn"
            )


def _is_store_of(
    root: Path, spec: TokenSpec, action_names: Sequence[str], inference: InferenceConfig
) -> bool:
    """Whether a store of this kind exists; opening it checks that it is whole."""
    if not (root / "manifest.json").exists():
        return False
    manifest = read_store_manifest(root)
    same = TokenSpec.from_dict(manifest["spec"]) == spec
    how = "" if inference == AS_TRAINED else name_of(inference)
    found = {_encoded_with(entry) for _, entry in manifest["drives"].entries()}
    return same and manifest["action_names"] == list(action_names) and found <= {how}


def _encoded_with(entry: dict[str, Any]) -> str:
    """Inference settings of a drive without the device; "" for the defaults."""
    return str(entry.get("meta", {}).get("encoded_with", "")).partition(" on ")[0]
