"""Opens published tokenizers: one adapter per format (`training.foreign.adapters`)."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock
from safetensors.torch import save

from tokenizer.load import Tokenizer, manifest_of
from tokenizer.networks.kinds import build_network
from tokenizer.published.commavq import CommaVQ
from tokenizer.published.cosmos_dv import CosmosDV
from tokenizer.published.driving_simulator import DrivingSimulator
from tokenizer.published.llamagen import LlamaGen
from tokenizer.published.magvit2 import Magvit2
from tokenizer.published.opened import OpenedTokenizer
from tokenizer.published.seed_voken import IBQ, OpenMagvit2
from tokenizer.published.taming import Taming, VideoOccupancy
from training.checkpoints.folder import WEIGHTS, write_checkpoint
from training.disk.hashing import file_sha256
from training.disk.places import cache_folder, refuse_existing
from training.errors import BadInput
from training.foreign.adapters import choose, paths, provenance


class TokenizerAdapter(Protocol):
    def open(self, files: Sequence[Path]) -> OpenedTokenizer: ...


ADAPTERS: dict[str, Callable[..., TokenizerAdapter]] = {
    "commavq": CommaVQ,
    "magvit2": Magvit2,
    "open_magvit2": OpenMagvit2,
    "ibq": IBQ,
    "taming": Taming,
    "video_occupancy": VideoOccupancy,
    "llamagen": LlamaGen,
    "driving_simulator": DrivingSimulator,
    "cosmos_dv": CosmosDV,
}


def adapter(name: str, options: Mapping[str, Any]) -> TokenizerAdapter:
    """The adapter called `name`; see `training.foreign.adapters.choose`."""
    return choose(ADAPTERS, "tokenizer", name, options)


def open_published(name: str, files: Sequence[Path], **options: Any) -> Tokenizer:
    """Open published files as a tokenizer; its hash equals that of its converted checkpoint.

    Raises:
        BadInput: as `adapter`, or the files are of another format.
    """
    opened = adapter(name, options).open(files)
    network = build_network(opened.config)
    network.load_state_dict(opened.weights)
    identity = hashlib.sha256(save(_stored(opened))).hexdigest()
    manifest = {**_manifest(name, files, opened), "files": {WEIGHTS: identity}}
    return Tokenizer(network, identity, manifest)


def convert(name: str, files: Sequence[Path], out: Path, **options: Any) -> list[str]:
    """Convert published files to our checkpoint; returns the names of unused tensors.

    Raises:
        BadInput: as `open_published`, or `out` exists.
    """
    refuse_existing("out", out)
    opened = adapter(name, options).open(files)
    write_checkpoint(out, _stored(opened), _manifest(name, files, opened))
    return opened.left_out


def opened_name(name: str, ckpt: Any, options: Mapping[str, Any]) -> str:
    """Path or name for `load_tokenizer`, from `tokenizer=name ckpt=...` of a command line.

    Published files are converted once, into the cache (DASHCAST_CACHE, else ~/.cache/dashcast).

    Raises:
        BadInput: as `convert`.
    """
    if ckpt is None:
        return name
    files = paths(ckpt)
    adapter(name, options)
    for file in files:
        if not file.is_file():
            raise BadInput(f"ckpt={file}: no such file")
    given = sorted((k, str(v)) for k, v in options.items() if v is not None)
    key = json.dumps([sorted(file_sha256(file) for file in files), given])
    digest = hashlib.sha256(key.encode()).hexdigest()
    out = cache_folder() / "tokenizers" / f"{name}-{digest[:12]}"
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{out}.lock"):
        if not out.exists():
            convert(name, files, out, **options)
    return str(out)


def _stored(opened: OpenedTokenizer) -> dict[str, Any]:
    """Weights under the names of EMA weights, which is what checkpoints load."""
    return {f"ema.module.{key}": tensor.contiguous() for key, tensor in opened.weights.items()}


def _manifest(name: str, files: Sequence[Path], opened: OpenedTokenizer) -> dict[str, Any]:
    found = manifest_of(opened.config, opened.preprocessing)
    return {**found, **provenance(name, files, opened.left_out)}
