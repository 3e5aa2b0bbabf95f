"""Windows of a drive: which are decoded after which, and what each has in common with others."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from training.errors import BadInput


@dataclass(frozen=True)
class WindowPlace:
    """A window of a drive.

    Attributes:
        start: its first frame.
        given: its frames that are there already, as first and last plus one, counted in the window.
    """

    start: int
    given: tuple[int, int]

    def kept(self, window: int, fades: bool) -> Float[Tensor, " t"]:
        """Weights of the frames that are there already, against those of this window.

        Args:
            fades: from the one to the other, so that no seam is left where this window was not
                given them.
        """
        begin, end = self.given
        weights = torch.zeros(window)
        ramp = torch.ones(end - begin)
        if fades and begin == 0:  # the earlier window knows more of what is far from its end
            ramp = torch.linspace(1, 0, end - begin + 2)[1:-1]
        elif fades:
            ramp = torch.linspace(0, 1, end - begin + 2)[1:-1]
        weights[begin:end] = ramp
        return weights


def check_overlap(overlap: int, window: int) -> None:
    """BadInput where windows overlap so far that no frame is new."""
    if not 0 < overlap < window:
        raise BadInput(f"video.overlap={overlap}: give 1 to {window - 1}, of a window of {window}")


def decoding_order(
    num_frames: int, window: int, overlap: int, backwards: bool
) -> list[WindowPlace]:
    """The windows that cover a drive, in the order in which they are decoded.

    Each has `overlap` frames in common with the one before it, the last one as many as it takes.

    Raises:
        BadInput: fewer frames than a window has, or an overlap that leaves no new frame.
    """
    if num_frames < window:
        raise BadInput(
            f"{num_frames} frames are shorter than the video decoder's window of {window}; "
            "give longer clips"
        )
    check_overlap(overlap, window)
    places, done = [WindowPlace(0, (0, 0))], window  # counted from the end that is decoded first
    while done < num_frames:
        start = min(done - overlap, num_frames - window)
        places.append(WindowPlace(start, (0, done - start)))
        done = start + window
    if not backwards:
        return places
    return [
        WindowPlace(num_frames - window - place.start, (window - place.given[1], window))
        if place.given[1]
        else WindowPlace(num_frames - window, (0, 0))
        for place in places
    ]


def upsampling_order(num_frames: int, window: int) -> list[WindowPlace]:
    """Windows over 2N - 1 frames, every second one given; each begins with a given frame.

    Args:
        num_frames: N.

    Raises:
        BadInput: 2N - 1 frames are fewer than a window has.
    """
    total = 2 * num_frames - 1
    if total < window:
        raise BadInput(
            f"{num_frames} frames give {total}, fewer than the video decoder's window of {window}; "
            f"give {(window + 1) // 2} or more"
        )
    starts = [*range(0, total - window, window - 1), total - window]
    return [WindowPlace(start, (0, 0)) for start in starts]
