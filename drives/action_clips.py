"""Clips for networks that learn from actions as well as frames."""

from typing import Any

import torch

from drives.clips import Clip, ClipDataModule


class ActionClipDataModule(ClipDataModule):
    """Clips for a model whose config needs the names of the actions."""

    def model_facts(self) -> dict[str, Any]:
        self.prepare_data()
        return {"action_names": self.source.action_names(self.drives)}

    def planned_facts(self) -> dict[str, Any]:
        """The same as `model_facts`, before any data is made."""
        return {"action_names": self.source.planned()[1]}

    def planned_batch(self, facts: dict[str, Any], size: int) -> Clip:
        frames = super().planned_batch(facts, size).frames
        return Clip(frames, torch.zeros(size, self.clip_frames, len(facts["action_names"])))
