"""Inputs besides tokens and actions that several networks share: the previous frame."""

from torch import nn


class LookBack(nn.Conv2d):
    """A convolution over the previous frame, `side` cells wide (odd)."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__(dim, dim, side, padding=side // 2, bias=False)
