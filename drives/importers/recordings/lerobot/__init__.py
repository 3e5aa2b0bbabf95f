"""LeRobotDataset, versions 2.x and 3.0: robots of Hugging Face's lerobot, and yaak-ai/L2D."""

from drives.importers.recordings.lerobot.adapter import FORMAT

__all__ = ["FORMAT"]
