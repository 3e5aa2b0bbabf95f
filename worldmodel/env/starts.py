"""Where a dream begins: a clip of a drive, with what was driven after it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from drives.tokens.drive import TokenDrive
from training.ranges import within
from worldmodel.windows import TokenWindows, collate


@dataclass(frozen=True)
class Start:
    """A prompt and its origin.

    Attributes:
        drive, step: of its first grid.
        tokens: the prompt.
        actions: row t leads to grid t + 1; they go on to the end of the drive.
        after: the grids that followed in the drive.
        caption: of the last grid; "" for none.
        lead: the grids before the prompt in its drive, for decoders of videos.
    """

    drive: str
    step: int
    tokens: Int[Tensor, "time height width"]
    actions: Float[Tensor, "step action"]
    after: Integer[np.ndarray, "_ *grid"]
    caption: str
    lead: Integer[np.ndarray, "_ *grid"]

    @property
    def name(self) -> str:
        return name_of(self.drive, self.step)

    @property
    def last_action(self) -> Float[np.ndarray, " action"]:
        """The action that led to the last grid of the prompt; of a single grid, the one after."""
        rows: np.ndarray = self.actions.numpy()
        return rows[max(0, len(self.tokens) - 2)].copy()

    def led_by(self, grids: Sequence[Tensor]) -> "Start":
        """The same, with a lead that goes on with these grids."""
        if not grids:
            return self
        return replace(self, lead=np.concatenate([self.lead, torch.stack([*grids]).cpu().numpy()]))

    @property
    def recorded(self) -> Float[Tensor, "step action"]:
        """The actions after the prompt; row 0 leads to the first imagined grid."""
        return self.actions[len(self.tokens) - 1 :]


def name_of(drive: str, step: int) -> str:
    return f"{drive}@{step}"


class Starts:
    """Every clip of some drives that a dream may begin with.

    Raises:
        BadInput: no drive is as long as a prompt.
    """

    def __init__(self, drives: Sequence[TokenDrive], prompt_steps: int) -> None:
        self.windows, self.prompt_steps = TokenWindows(drives, prompt_steps), prompt_steps
        self._drives = {drive.id: drive for drive in drives}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Start:
        """BadInput for a number that no clip has."""
        within(0, len(self) - 1, start=index)
        found = self.windows.describe(index)
        drive, step = self._drives[found["drive"]], found["steps"][0]
        clip = collate([self.windows[index]])
        caption = ""
        if clip.text is not None and (last := int(clip.text.index[0, -1])) >= 0:
            caption = clip.text.texts[last]
        actions = torch.from_numpy(np.array(drive.actions[step:], np.float32))
        lead, after = drive.tokens[:step], drive.tokens[step + self.prompt_steps :]
        return Start(drive.id, step, clip.tokens[0], actions, after, caption, lead)

    def name(self, index: int) -> str:
        """The name of a clip, of which nothing is read."""
        within(0, len(self) - 1, start=index)
        found = self.windows.describe(index)
        return name_of(found["drive"], found["steps"][0])

    def spread(self, num: int) -> list[int]:
        """Numbers of at most `num` clips, evenly spread over the drives."""
        return np.unique(np.linspace(0, len(self) - 1, num).astype(int)).tolist()

    def of_drives(self, num: int) -> list[int]:
        """Numbers of at most `num` clips of every drive, evenly spread."""
        found, first = [], 0
        for stop in self.windows.ends.tolist():
            if stop > first:
                found += np.unique(np.linspace(first, stop - 1, num).astype(int)).tolist()
            first = stop
        return found
