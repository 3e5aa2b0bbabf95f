"""Clips for networks that learn from actions as well as frames."""

from typing import Any

import torch

from drives.clips import Clip, ClipDataModule


class ActionClipDataModule(ClipDataModule):
    """Clips, and the names of their actions as a fact about the model."""

    def model_facts(self) -> dict[str, Any]:
        self.prepare_data()
        return {"action_names": self.source.action_names(self.drives)}

    def planned_facts(self) -> dict[str, Any]:
        """What `model_facts` will say, before any data is made."""
        return {"action_names": self.source.planned()[1]}

    def planned_batch(self, facts: dict[str, Any], size: int) -> Clip:
        frames = super().planned_batch(facts, size).frames
        return Clip(frames, torch.zeros(size, self.clip_frames, len(facts["action_names"])))
