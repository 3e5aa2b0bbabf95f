"""Several heads in one folder: each reads a column of the drives from the newest frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from drives.tokens.spec import TokenSpec
from training.disk.judging import judged
from training.disk.leftovers import written_whole
from training.disk.records import read_record, write_record
from training.errors import BadInput
from training.ranges import at_least
from worldmodel.evaluation.values.rewards import RewardHead
from worldmodel.heads.composed import ComposedHead

MANIFEST, WEIGHTS = "heads.json", "heads.safetensors"


@dataclass(frozen=True)
class HeadsManifest:
    """What is written beside the weights.

    Attributes:
        columns: what the heads read, in order.
        num_frames: newest time steps that they read.
        with_actions: those that read the row of actions, and the other heads.
        action_names: its columns.
        tokenizer: hash of the tokenizer of their tokens.
        convolutions: of the heads on tokens.
    """

    columns: tuple[str, ...]
    num_frames: int
    with_actions: tuple[str, ...]
    action_names: tuple[str, ...]
    tokenizer: str
    convolutions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        at_least(1, num_frames=self.num_frames)


class FrameHeads:
    """Values of the columns after a frame, read from the newest frames.

    A column of zeros and ones is read as a chance: its mean given the frames.

    Args:
        heads: on tokens; composed ones come last and read these.
        action_names: columns of the rows, for composed heads.
        convolutions: that the heads on tokens were made with.
    """

    def __init__(
        self,
        heads: Mapping[str, RewardHead | ComposedHead],
        num_frames: int,
        spec: TokenSpec,
        action_names: tuple[str, ...] = (),
        convolutions: tuple[int, ...] = (),
    ) -> None:
        self.heads, self.num_frames, self.spec = heads, num_frames, spec
        self.action_names, self.convolutions = action_names, convolutions

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.heads)

    def to(self, device: str | torch.device) -> "FrameHeads":
        for head in self.heads.values():
            head.to(device)
        return self

    @torch.inference_mode()
    def __call__(
        self,
        grids: Sequence[Int[Tensor, "dream height width"]],
        rows: Float[Tensor, "dream action"] | None = None,
    ) -> dict[str, Float[Tensor, " dream"]]:
        """Values after the last of these grids, by name; fewer grids are led by the first.

        Args:
            rows: all action columns of the step that led there.
        """
        newest = list(grids[-self.num_frames :])
        stacks = torch.stack([newest[0]] * (self.num_frames - len(newest)) + newest, 1)
        return self.of_stacks(stacks, rows)

    @torch.inference_mode()
    def of_stacks(
        self,
        stacks: Int[Tensor, "frame stack height width"],
        rows: Float[Tensor, "frame action"] | None = None,
    ) -> dict[str, Float[Tensor, " frame"]]:
        """The same of frames that are stacked upon those before them."""
        read: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            if isinstance(head, RewardHead):
                read[name] = head(stacks)[:, 0]
        composed = {n: h for n, h in self.heads.items() if isinstance(h, ComposedHead)}
        if composed:
            inputs = composed_inputs(read, rows)
            read |= {name: head(inputs) for name, head in composed.items()}
        return {name: read[name] for name in self.heads}

    def save(self, folder: Path) -> None:
        """Write weights, then the manifest."""
        weights = {
            f"{name}.{key}": value.contiguous().cpu()
            for name, head in self.heads.items()
            for key, value in head.state_dict().items()
        }
        with written_whole(folder / WEIGHTS) as partial:
            save_file(weights, partial)
        values = {
            "columns": self.names,
            "num_frames": self.num_frames,
            "with_actions": [n for n, h in self.heads.items() if isinstance(h, ComposedHead)],
            "action_names": self.action_names,
            "tokenizer": self.spec.tokenizer,
            "convolutions": self.convolutions,
        }
        write_record(folder / MANIFEST, values)


def composed_inputs(
    read: Mapping[str, Float[Tensor, " frame"]], rows: Float[Tensor, "frame action"] | None
) -> Float[Tensor, "frame input"]:
    """What a composed head reads: the readings of the others, at most 1, and the row."""
    some = [one[:, None].clamp(-1, 1) for one in read.values()]
    return torch.cat([*some, *([] if rows is None else [rows])], 1)


def read_manifest(folder: str | Path) -> HeadsManifest:
    """What heads a folder holds; BadInput for none, or a damaged manifest."""
    file = Path(folder) / MANIFEST
    if not file.exists():
        raise BadInput(
            f"heads={folder}: holds no {MANIFEST}; make it by python -m worldmodel.heads"
        )
    return judged(HeadsManifest, read_record(file), str(file))


def load_heads(
    folder: str | Path, spec: TokenSpec, action_names: tuple[str, ...] = ()
) -> FrameHeads:
    """Heads of tokens like these.

    Args:
        action_names: columns of the model, whose rows the heads will get.

    Raises:
        BadInput: no heads, damaged ones, or those of another tokenizer or of other actions.
    """
    place, manifest = Path(folder), read_manifest(folder)
    if manifest.tokenizer != spec.tokenizer:
        raise BadInput(
            f"heads={folder}: read tokens of tokenizer {manifest.tokenizer[:12]}, and the model "
            f"has those of {spec.tokenizer[:12]}; train heads on its tokens"
        )
    if manifest.with_actions and manifest.action_names != action_names:
        raise BadInput(
            f"heads={folder}: read the actions {', '.join(manifest.action_names)}, and the model "
            f"has {', '.join(action_names) or 'none'}; train heads without: with_actions=[]"
        )
    try:
        weights = load_file(place / WEIGHTS)
    except Exception as error:  # safetensors has an error of its own
        raise BadInput(f"{place / WEIGHTS}: {error}; use another copy") from error
    found: dict[str, RewardHead | ComposedHead] = {}
    acted = set(manifest.with_actions)
    wide = len(set(manifest.columns) - acted) + len(action_names)
    for name in manifest.columns:
        head: RewardHead | ComposedHead = ComposedHead(wide)
        if name not in acted:
            head = RewardHead(spec, manifest.num_frames, convolutions=manifest.convolutions)
        own = {k.partition(".")[2]: v for k, v in weights.items() if k.partition(".")[0] == name}
        try:
            head.load_state_dict(own)
        except RuntimeError as error:
            raise BadInput(f"{place / WEIGHTS}: does not fit {MANIFEST}; train anew") from error
        found[name] = head.eval().requires_grad_(False)
    return FrameHeads(found, manifest.num_frames, spec, action_names, manifest.convolutions)
