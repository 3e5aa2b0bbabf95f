"""Opens a trained world model: a run, a checkpoint, or one that ships with the package."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drives.tokens.store import TokenSpec, TokenStore
from tokenizer.load import Tokenizer
from training.checkpoints.fitting import fitted
from training.checkpoints.folder import (
    MANIFEST,
    OpenedCheckpoint,
    open_checkpoint,
)
from training.checkpoints.manifests import check_kind, entries, weights_hash
from training.checkpoints.shipped import named, write_export
from training.errors import BadInput
from training.optimization.self_compression import settled
from worldmodel.conditioning.text_encoders import TextEncoder, Texts, texts_from
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import DynamicsConfig
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

PRETRAINED = Path(__file__).parent / "pretrained"
KIND = "worldmodel"
TRAINED_TOGETHER = "trained together"  # in a spec: the tokenizer is in the same checkpoint
# Modules of a network that older checkpoints name differently: old name to new.
RENAMED: dict[type[DynamicsConfig], dict[str, str]] = {
    WholeFrameConfig: {
        "place": "spatial_pos_emb",
        "when": "temporal_pos_emb",
        "told": "token_gate",
    }
}


@dataclass(frozen=True)
class WorldModel:
    """A trained network in eval mode, and the description of its data.

    Attributes:
        path: its checkpoint folder.
        action_names: action columns that it expects.
    """

    network: Dynamics
    spec: TokenSpec
    action_names: tuple[str, ...]
    path: Path
    manifest: dict[str, Any]

    def texts(self, encoder: TextEncoder | None = None) -> Texts | None:
        """The text encoder of its captions; None if it reads none.

        Raises:
            BadInput: the encoder cannot be opened, or is not the one of training.
        """
        description = self.manifest.get("text")
        try:
            return texts_from(description, encoder) if description else None
        except BadInput as error:
            raise BadInput(f"{self.path}: {error}") from error

    def reads_tokens_of(self, name: str, tokenizer: Tokenizer | None = None) -> bool:
        """Whether it was trained on tokens of tokenizer `name` (a hash or a published name).

        Args:
            tokenizer: an open tokenizer; links its hash with its published name.
        """
        known = set(tokenizer.known_as if tokenizer else ())
        return self.spec.tokenizer == name or {self.spec.tokenizer, name} <= known

    def check_store(self, store: TokenStore, tokenizer: Tokenizer | None = None) -> None:
        """BadInput unless the store has the tokens and actions of training.

        A published model without actions accepts any action columns.

        Args:
            tokenizer: see `reads_tokens_of`.
        """
        if tokenizer and store.spec.tokenizer not in tokenizer.known_as:
            raise BadInput(
                f"{store.root}: holds tokens of {store.spec.tokenizer[:12]}, not of tokenizer "
                f"{tokenizer.hash[:12]}; give the tokenizer that made them"
            )
        grid = store.spec.grid
        if self.spec.grid == (1, *grid[1:]):
            grid = self.spec.grid  # the grids of one step are time steps to it: a clip
        checks = [
            ("grid", self.spec.grid, grid),
            ("vocabulary", self.spec.vocab_size, store.spec.vocab_size),
            ("bit order", self.spec.bit_order, store.spec.bit_order),
        ]
        if not self.reads_tokens_of(store.spec.tokenizer, tokenizer):
            checks.insert(0, ("tokenizer", self.spec.tokenizer, store.spec.tokenizer))
        if self.action_names or "published" not in self.manifest:
            checks.append(("action columns", self.action_names, store.action_names))
        for key, ours, theirs in checks:
            if ours != theirs:
                raise BadInput(
                    f"{self.path}: was trained with {key} {ours}, but {store.root} has {theirs}; "
                    "evaluate it on a store of its own tokenizer"
                )


def manifest_of(
    config: DynamicsConfig, spec: TokenSpec, action_names: Sequence[str]
) -> dict[str, Any]:
    """Manifest entries from which `load_world_model` rebuilds the network."""
    return {
        "kind": KIND,
        "network": describe(config),
        "spec": asdict(spec),
        "action_names": list(action_names),
    }


@dataclass(frozen=True)
class WorldModelEntries:
    """Manifest entries of a world model besides `Head`."""

    network: dict[str, Any]
    spec: TokenSpec
    action_names: tuple[str, ...]
    text: dict[str, Any] | None = None


def current_name(config: DynamicsConfig, name: str) -> str:
    """Name in this release of a parameter of an older checkpoint."""
    module, dot, rest = name.partition(".")
    return RENAMED.get(type(config), {}).get(module, module) + dot + rest


def load_world_model(path: str | Path, setting: str = "ckpt") -> WorldModel:
    """Open a shipped model, a run folder (its newest whole checkpoint) or a checkpoint folder.

    Args:
        setting: what names it, for messages.

    Raises:
        BadInput: not there, damaged, of another schema or of another kind.
    """
    return world_model_from(open_checkpoint(named(path, PRETRAINED, setting), KIND))


def world_model_from(opened: OpenedCheckpoint) -> WorldModel:
    """The world model in a checkpoint.

    Raises:
        BadInput: as `load_world_model`.
    """
    folder, manifest, stored = opened
    check_kind(manifest, folder, KIND)
    entry = entries(WorldModelEntries, resolved(manifest), folder)
    config = from_description(entry.network, f"{folder / MANIFEST}: network")
    weights = {k.removeprefix("network."): v for k, v in settled(stored).items()}
    network = fitted(
        lambda: build_dynamics(config, entry.spec, len(entry.action_names)),
        {current_name(config, name): value for name, value in weights.items()},
        folder,
    )
    network.eval().requires_grad_(False)
    return WorldModel(network, entry.spec, entry.action_names, folder, manifest)


def resolved(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest whose spec names the tokenizer: of what was trained together, these weights."""
    spec = manifest.get("spec")
    if not isinstance(spec, dict) or spec.get("tokenizer") != TRAINED_TOGETHER:
        return manifest
    return {**manifest, "spec": {**spec, "tokenizer": weights_hash(manifest)}}


def export_world_model(checkpoint: Path, out: Path, **facts: Any) -> None:
    """Write the weights in half precision, without optimizer state and places, with `facts`."""
    opened = open_checkpoint(checkpoint, KIND)
    write_export(out, settled(opened.weights), resolved(opened.manifest), facts)
