"""Frames of dreams, step by step: of an image tokenizer, or of one that reads the past."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, Integer, UInt8
from torch import Tensor

from drives.clips.preprocessing import to_uint8
from tokenizer.load import Tokenizer
from tokenizer.networks.base import DriveDecoder
from worldmodel.evaluation.clip_decoder import CHUNK, decode_grids
from worldmodel.video_decoder.decoder import TokenVideoDecoder


class DreamPixels:
    """Decodes the grids of dreams; one that reads the past gets every grid once, in order.

    Args:
        video: makes the frames in place of an image tokenizer's own decoder, each from the window
            that ends with it.
    """

    def __init__(self, tokenizer: Tokenizer, video: TokenVideoDecoder | None = None) -> None:
        self.tokenizer, self.video = tokenizer, video
        self.reads_past = tokenizer.drive_decoder() is not None
        self._streams: list[DriveDecoder] = []
        self._num_read = 0
        self._newest: UInt8[Tensor, "dream frame 3 h w"]

    def forget(self) -> None:
        """The grids before have changed."""
        self._streams, self._num_read = [], 0

    def fresh(self) -> "DreamPixels":
        """The same decoders, nothing read yet."""
        return DreamPixels(self.tokenizer, self.video)

    def newest(
        self,
        grids: Sequence[Int[Tensor, "dream height width"]],
        leads: Sequence[Integer[np.ndarray, "_ *grid"]],
    ) -> UInt8[Tensor, "dream frame 3 h w"]:
        """Frames of the last of these grids.

        Args:
            grids: of the dreams, by time step.
            leads: grids before them in the drives.
        """
        if self.video is not None:
            seen = torch.stack(list(grids[-self.video.window_frames :]), dim=1)
            return to_uint8(self.video.newest(seen))[:, None]
        if not self.reads_past:
            return decode_grids(self.tokenizer, grids[-1])[:, None]
        if not self._streams:
            self._streams = [self._opened(lead) for lead in leads]
        for grid in grids[self._num_read :]:
            frames = [stream(one[None]) for stream, one in zip(self._streams, grid, strict=True)]
            if grid is grids[-1]:
                self._newest = to_uint8(torch.stack(_as_many(frames)))
        self._num_read = len(grids)
        return self._newest

    def _opened(self, lead: Integer[np.ndarray, "_ *grid"]) -> DriveDecoder:
        """A decoder that has read what came before a dream."""
        stream = self.tokenizer.drive_decoder()
        assert stream is not None
        before = torch.from_numpy(np.asarray(lead, np.int64)).to(self.tokenizer.device)
        for chunk in before.split(CHUNK) if len(before) else ():
            stream(chunk)
        return stream


def _as_many(frames: Sequence[Tensor]) -> list[Tensor]:
    """The first grid of a drive has one frame, and others more: that frame stands as long."""
    most = max(map(len, frames))
    return [torch.cat([f[:1].expand(most - len(f), -1, -1, -1), f]) for f in frames]
