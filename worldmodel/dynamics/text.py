"""Encoded captions, and their modules in a network."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from training.errors import BadInput


@dataclass(frozen=True)
class TextContext:
    """Captions of every time step; each distinct caption is stored once.

    Attributes:
        embeddings: encoder output of every distinct caption; all-zero vectors are padding.
        index: caption of every example and time step; -1 for none. The last one holds
            beyond the end.
        negative: caption of the negative prompt of guidance; -1 for none.
    """

    embeddings: Float[Tensor, "caption token width"]
    index: Int[Tensor, "batch step"]
    negative: int = -1

    def to(self, *args: Any, **kwargs: Any) -> "TextContext":
        embeddings, index = self.embeddings.to(*args, **kwargs), self.index.to(*args, **kwargs)
        return replace(self, embeddings=embeddings, index=index)

    def steps(self, start: int, stop: int) -> Int[Tensor, "batch step"]:
        """Caption index of time steps start .. stop - 1."""
        length = self.index.shape[1]
        wanted = torch.arange(start, stop, device=self.index.device).clamp(max=length - 1)
        return self.index[:, wanted]

    def from_step(self, start: int) -> "TextContext":
        """The captions from time step `start` on."""
        return replace(self, index=self.steps(start, max(start + 1, self.index.shape[1])))

    def drop(self, examples: Bool[Tensor, " batch"]) -> "TextContext":
        """Remove the captions of these examples."""
        return replace(self, index=self.index.masked_fill(examples[:, None], -1))

    def rows(self, examples: Int[Tensor, " row"]) -> "TextContext":
        """The captions of some examples."""
        return replace(self, index=self.index[examples])

    def repeat(self, num: int) -> "TextContext":
        """Repeat every example `num` times, example-major."""
        return replace(self, index=self.index.repeat_interleave(num, dim=0))

    def paired(self, away: bool) -> "TextContext":
        """All rows twice; the second copy is unchanged or (`away`) with the negative caption."""
        other = torch.full_like(self.index, self.negative) if away else self.index
        return replace(self, index=torch.cat([self.index, other]))

    @staticmethod
    def empty(batch: int, width: int, device: Any = None) -> "TextContext":
        """No captions."""
        embeddings = torch.zeros(0, 1, width, device=device)
        return TextContext(embeddings, torch.full((batch, 1), -1, device=device))

    def text_index(self, start: int, stop: int, lead: int = 0) -> Int[Tensor, " caption"]:
        """Index into `all_text` of every (example, time step), for cross-attention.

        A constant caption gives one index per example. With `lead` positions before the first
        time step, they count as one more step with the same caption.
        """
        if self.index.shape[1] == 1:
            return self.steps(start, start + 1).flatten() + 1
        steps = self.steps(start, stop)
        steps = torch.cat([steps[:, :1], steps], dim=1) if lead else steps
        return steps.flatten() + 1

    def all_text(self, step_length: int) -> "Text":
        """Every caption; entry 0 is no caption, one vector of zeros."""
        states = F.pad(self.embeddings, (0, 0, 0, 0, 1, 0))
        mask = (states != 0).any(-1)
        mask[:, 0] = True
        return Text(states, mask, step_length)

    def text(self, start: int, stop: int, step_length: int, lead: int = 0) -> "Text":
        """Captions of time steps start .. stop - 1 and of `lead` positions before them."""
        index, every = self.text_index(start, stop, lead), self.all_text(step_length)
        return Text(every.states[index], every.mask[index], step_length, lead)

    def check(self, batch: int, num_tokens: int, width: int) -> None:
        """BadInput unless the shapes fit; num_tokens=0 allows any number."""
        given = tuple(self.embeddings.shape[1:])
        if given != (num_tokens or given[0], width) or self.index.shape[1] < 1:
            raise BadInput(
                f"text of {given} (tokens, width), but the model reads "
                f"({num_tokens or 'any'}, {width}); use the encoder that it was trained with"
            )
        if len(self.index) != batch:
            raise BadInput(f"text for {len(self.index)} examples of {batch}; give it for each")


class Text(NamedTuple):
    """Captions for cross-attention, one per time step of each example.

    Attributes:
        states: encoder output, one vector per token.
        mask: tokens that are not padding, at least one per caption.
        step_length: positions of a time step; all attend to its caption.
        lead: positions before the first time step; they attend to the first caption.
    """

    states: Float[Tensor, "caption token context"]
    mask: Bool[Tensor, "caption token"]
    step_length: int
    lead: int = 0


class TextPrefix(nn.Module):
    """Text tokens in the prefix of a time step: projected encoder output."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim, bias=False)

    def forward(
        self,
        text: TextContext,
        start: int,
        stop: int,
        nothing: Float[Tensor, " dim"],
    ) -> Float[Tensor, "batch step token dim"]:
        """Time steps start .. stop - 1, without position encoding; `nothing` for no caption."""
        tokens = self.project(text.embeddings.to(self.project.weight.dtype))
        blank = nothing.to(tokens.dtype).expand(1, *tokens.shape[1:])
        return torch.cat([blank, tokens])[text.steps(start, stop) + 1]


class TextVector(nn.Module):
    """One vector per caption: the projected mean of its tokens; zero for no caption."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim, bias=False)

    def forward(
        self, captions: TextContext, start: int, stop: int
    ) -> Float[Tensor, "batch step 1 dim"]:
        """Vectors of time steps start .. stop - 1."""
        tokens = captions.embeddings
        count = (tokens != 0).any(-1).sum(1, keepdim=True).clamp(min=1)
        vectors = self.project((tokens.sum(1) / count).to(self.project.weight.dtype))
        vectors = F.pad(vectors, (0, 0, 1, 0))
        return vectors[captions.steps(start, stop) + 1][:, :, None]
