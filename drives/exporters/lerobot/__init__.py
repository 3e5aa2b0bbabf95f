"""Writes LeRobotDataset v3.0."""

from drives.exporters.lerobot.dataset import FORMAT

__all__ = ["FORMAT"]
