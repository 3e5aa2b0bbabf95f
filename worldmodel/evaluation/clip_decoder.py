"""Frames of the token grids of clips.

An image tokenizer's grid is one frame. A video tokenizer's grid is several frames, and its decoder
reads all earlier grids of the drive. The first grid of a clip then serves as past alone: it holds
one frame where the drive begins, several elsewhere.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, Integer, UInt8
from torch import Tensor

from drives.clips.preprocessing import to_uint8
from tokenizer.load import Tokenizer
from worldmodel.video_decoder.decoder import TokenVideoDecoder
from worldmodel.windows import TokenWindows

CHUNK = 64  # grids at once


def places_of(windows: TokenWindows, ids: Sequence[int]) -> list[tuple[str, int]]:
    """Drive and first time step of each window."""
    found = (windows.describe(index) for index in ids)
    return [(window["drive"], window["steps"][0]) for window in found]


def leads_of(
    windows: TokenWindows, ids: Sequence[int]
) -> list[Integer[np.ndarray, "_ height width"]]:
    """The grids before each window in its drive, not read yet."""
    encoded = {drive.id: drive.tokens for drive in windows.drives}
    return [encoded[drive][:start] for drive, start in places_of(windows, ids)]


class ClipDecoder:
    """Decodes real and imagined tokens of some clips.

    Args:
        tokens: the real tokens.
        leads: the grids before each clip in its drive; image tokenizers need none.
        video: makes the frames, prompt and future together, in place of an image tokenizer's own
            decoder.
        first_number: of the clips, which the video decoder counts: a clip's number makes its noise.

    Attributes:
        first_step: time step whose frames are the clip's first: 1 for video tokenizers.
        prompt: frames of the prompt.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tokens: Int[Tensor, "clip time height width"],
        prompt_steps: int,
        leads: Sequence[Integer[np.ndarray, "_ height width"]],
        video: TokenVideoDecoder | None = None,
        first_number: int = 0,
    ) -> None:
        self.tokenizer, self.tokens, self.prompt_steps = tokenizer, tokens, prompt_steps
        self.video, self.first_number = video, first_number
        self._real: UInt8[Tensor, "clip frame 3 h w"] | None = None
        streams = [tokenizer.drive_decoder() for _ in leads]
        self.streams = [stream for stream in streams if stream is not None]
        self.first_step = int(bool(self.streams))
        if not self.streams:
            if video is None:
                self.prompt = decode_grids(tokenizer, tokens[:, :prompt_steps])
            else:
                self._real = self._by_video(tokens)
                self.prompt = self._real[:, :prompt_steps]
            return
        prompts = []
        for stream, lead, clip in zip(self.streams, leads, tokens, strict=True):
            before = torch.from_numpy(np.asarray(lead, np.int64)).to(clip.device)
            for chunk in torch.cat([before, clip[:1]]).split(CHUNK):
                stream(chunk)
            prompts.append(to_uint8(stream(clip[1:prompt_steps])))
        self.prompt = torch.stack(prompts)

    def real(self) -> UInt8[Tensor, "clip frame 3 h w"]:
        """Frames of the clips, from `first_step` on; decoded once."""
        if self._real is None:
            later = self.after_prompt(self.tokens[:, self.prompt_steps :])
            self._real = torch.cat([self.prompt, later], 1)
        return self._real

    def after_prompt(
        self, tokens: Int[Tensor, "clip horizon height width"]
    ) -> UInt8[Tensor, "clip frame 3 h w"]:
        """Frames of tokens that follow the prompts."""
        if self.video is not None:
            whole = torch.cat([self.tokens[:, : self.prompt_steps], tokens], dim=1)
            return self._by_video(whole)[:, self.prompt_steps :]
        if not self.streams:
            return decode_grids(self.tokenizer, tokens)
        pairs = zip(self.streams, tokens, strict=True)
        return torch.stack([to_uint8(stream.fork()(future)) for stream, future in pairs])

    def _by_video(
        self, tokens: Int[Tensor, "clip time height width"]
    ) -> UInt8[Tensor, "clip frame 3 h w"]:
        assert self.video is not None
        return to_uint8(self.video.decode(tokens, seeds=self._seeds(len(tokens))))

    def _ahead_by_video(
        self, tokens: Int[Tensor, "clip horizon height width"]
    ) -> UInt8[Tensor, "clip frame 3 h w"]:
        assert self.video is not None
        seeds, frames = self._seeds(len(tokens)), []
        for step, ahead in enumerate(tokens.unbind(1), self.prompt_steps):
            seen = torch.cat([self.tokens[:, :step], ahead[:, None]], dim=1)
            frames.append(to_uint8(self.video.newest(seen, seeds)))
        return torch.stack(frames, dim=1)

    def _seeds(self, num: int) -> range:
        assert self.video is not None
        first = self.video.how.seed + self.first_number
        return range(first, first + num)

    def one_step_ahead(
        self, tokens: Int[Tensor, "clip horizon height width"]
    ) -> UInt8[Tensor, "clip frame 3 h w"]:
        """Frames of tokens, each decoded after the real tokens before it."""
        if self.video is not None:
            return self._ahead_by_video(tokens)
        if not self.streams:
            return decode_grids(self.tokenizer, tokens)
        clips = []
        for stream, ahead, real in zip(self.streams, tokens, self.tokens, strict=True):
            past, frames = stream.fork(), []
            for step in range(len(ahead)):
                frames.append(to_uint8(past.fork()(ahead[step : step + 1])))
                past(real[self.prompt_steps + step][None])
            clips.append(torch.cat(frames))
        return torch.stack(clips)


def decode_grids(
    tokenizer: Tokenizer, tokens: Int[Tensor, "*batch height width"]
) -> UInt8[Tensor, "*batch 3 image_h image_w"]:
    """Decodes every grid to a frame, by an image tokenizer."""
    batch = tokens.shape[:-2]
    flat = tokens.reshape(-1, *tokens.shape[-2:])
    frames = torch.cat([to_uint8(tokenizer.decode(chunk)) for chunk in flat.split(CHUNK)])
    return frames.reshape(*batch, *frames.shape[1:])
