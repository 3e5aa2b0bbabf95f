"""Opens a trained world model from a run or a checkpoint folder."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drives.tokens.store import TokenSpec, TokenStore
from tokenizer.load import Tokenizer
from training.checkpoints.fitting import fitted
from training.checkpoints.folder import MANIFEST, OpenedCheckpoint, open_checkpoint
from training.checkpoints.manifests import check_kind, entries
from training.errors import BadInput
from worldmodel.conditioning.text_encoders import TextEncoder, Texts, texts_from
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import DynamicsConfig
from worldmodel.dynamics.kinds import build_dynamics, describe, from_description

KIND = "worldmodel"


@dataclass(frozen=True)
class WorldModel:
    """A trained network in eval mode, and what it was trained on.

    Attributes:
        path: the checkpoint folder it came from.
        action_names: columns of the actions that it expects.
    """

    network: Dynamics
    spec: TokenSpec
    action_names: tuple[str, ...]
    path: Path
    manifest: dict[str, Any]

    def texts(self, encoder: TextEncoder | None = None) -> Texts | None:
        """What its captions are read through; None for a model that reads none.

        Raises:
            BadInput: an encoder that cannot be opened, or is not the one of the training.
        """
        description = self.manifest.get("text")
        try:
            return texts_from(description, encoder) if description else None
        except BadInput as error:
            raise BadInput(f"{self.path}: {error}") from error

    def reads_tokens_of(self, name: str, tokenizer: Tokenizer | None = None) -> bool:
        """Whether tokens made by `name` (a hash, or a published name) are those of its training.

        Args:
            tokenizer: one at hand that goes by both, its hash and its published name.
        """
        known = {tokenizer.hash, tokenizer.published_as} - {""} if tokenizer else set()
        return self.spec.tokenizer == name or {self.spec.tokenizer, name} <= known

    def check_store(self, store: TokenStore, tokenizer: Tokenizer | None = None) -> None:
        """BadInput unless the store has the tokens and actions that the model was trained on.

        A published model that reads no actions takes a store with any.

        Args:
            tokenizer: see `reads_tokens_of`.
        """
        if tokenizer and store.spec.tokenizer not in (tokenizer.hash, tokenizer.published_as):
            raise BadInput(
                f"{store.root}: holds tokens of {store.spec.tokenizer[:12]}, not of tokenizer "
                f"{tokenizer.hash[:12]}; give the tokenizer that made them"
            )
        checks = [
            ("grid", self.spec.grid, store.spec.grid),
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
    """What a checkpoint must say for `load_world_model` to rebuild the network."""
    return {
        "kind": KIND,
        "network": describe(config),
        "spec": asdict(spec),
        "action_names": list(action_names),
    }


@dataclass(frozen=True)
class WorldModelEntries:
    """What the manifest of a world model says besides every manifest's `Head`."""

    network: dict[str, Any]
    spec: TokenSpec
    action_names: tuple[str, ...]
    text: dict[str, Any] | None = None


def load_world_model(path: str | Path) -> WorldModel:
    """Open a run folder (its newest whole checkpoint) or a checkpoint folder.

    Raises:
        BadInput: not there, damaged, of another schema or of another kind.
    """
    return world_model_from(open_checkpoint(Path(path), KIND))


def world_model_from(opened: OpenedCheckpoint) -> WorldModel:
    """The world model in a checkpoint.

    Raises:
        BadInput: as `load_world_model`.
    """
    folder, manifest, everything = opened
    check_kind(manifest, folder, KIND)
    said = entries(WorldModelEntries, manifest, folder)
    config = from_description(said.network, f"{folder / MANIFEST}: network")
    weights = {k.removeprefix("network."): v for k, v in everything.items()}
    network = fitted(
        lambda: build_dynamics(config, said.spec, len(said.action_names)), weights, folder
    )
    network.eval().requires_grad_(False)
    return WorldModel(network, said.spec, said.action_names, folder, manifest)
