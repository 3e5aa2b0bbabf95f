"""From a distribution over the next grid to futures: every way to decode, behind `rollout`.

Only settings are imported here; they need no torch.
"""

from worldmodel.decoding.config import Guidance, Sampling

__all__ = ["Guidance", "Sampling"]
