"""Clips for a tokenizer and a world model that are trained together."""

from typing import Any

import numpy as np

from drives.clips.data_module import ActionClipDataModule
from drives.folder import common_rate
from worldmodel.action_ranges import facts_of_rows


class JointClipDataModule(ActionClipDataModule):
    """Clips as long as the windows of the world model, and what it needs to know of the data."""

    def model_facts(self) -> dict[str, Any]:
        """Names, ranges and moments of the actions, and the rate of the frames."""
        facts = super().model_facts()
        rows = np.concatenate(self.dataset("train").actions)
        return {**facts, "fps": common_rate(self.drives), **facts_of_rows(rows)}

    def planned_facts(self) -> dict[str, Any]:
        """The same; ranges and moments are made up, for no cost depends on them."""
        fps, names, _ = self.source.planned()
        zeros, ones = (0.0,) * len(names), (1.0,) * len(names)
        return {
            "action_names": names,
            "fps": fps,
            "action_ranges": (zeros, ones),
            "action_moments": (zeros, ones),
        }
