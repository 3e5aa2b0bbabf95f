"""Captions as a network reads them: embeddings of a frozen encoder, and who reads which."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from training.errors import BadInput


@dataclass(frozen=True)
class TextContext:
    """What is said at every time step; each caption is held once, however often it is read.

    Attributes:
        embeddings: of every different caption, from the encoder; zeros are no token.
        index: the caption of every example and time step; -1 where nothing is said. The last
            one goes on beyond the end.
        against: the caption that guidance turns away from (a negative prompt); -1 for none,
            which is to turn away from saying nothing.
    """

    embeddings: Float[Tensor, "caption token width"]
    index: Int[Tensor, "batch step"]
    against: int = -1

    def to(self, *args: Any, **kwargs: Any) -> "TextContext":
        embeddings, index = self.embeddings.to(*args, **kwargs), self.index.to(*args, **kwargs)
        return replace(self, embeddings=embeddings, index=index)

    def steps(self, start: int, stop: int) -> Int[Tensor, "batch step"]:
        """The captions' numbers of time steps start .. stop - 1."""
        length = self.index.shape[1]
        wanted = torch.arange(start, stop, device=self.index.device).clamp(max=length - 1)
        return self.index[:, wanted]

    def from_step(self, start: int) -> "TextContext":
        """The same captions without those before a time step."""
        return replace(self, index=self.steps(start, max(start + 1, self.index.shape[1])))

    def drop(self, examples: Bool[Tensor, " batch"]) -> "TextContext":
        """Nothing is said in these examples."""
        return replace(self, index=self.index.masked_fill(examples[:, None], -1))

    def repeat(self, num: int) -> "TextContext":
        """`num` rows per example, in example-major order."""
        return replace(self, index=self.index.repeat_interleave(num, dim=0))

    def paired(self, away: bool) -> "TextContext":
        """All rows, and once more: as they are, or (`away`) reading `against`."""
        other = torch.full_like(self.index, self.against) if away else self.index
        return replace(self, index=torch.cat([self.index, other]))

    @staticmethod
    def silence(batch: int, width: int, device: Any = None) -> "TextContext":
        """Nothing is said, to anybody."""
        embeddings = torch.zeros(0, 1, width, device=device)
        return TextContext(embeddings, torch.full((batch, 1), -1, device=device))

    def numbers(self, start: int, stop: int, lead: int = 0) -> Int[Tensor, " said"]:
        """Who attends to which of `all_words`: example by example, step by step.

        One for all the steps of an example where the captions never change. Where `lead` slots
        stand before the first step, they count as a step of their own that hears the same.
        """
        if self.index.shape[1] == 1:
            return self.steps(start, start + 1).flatten() + 1
        steps = self.steps(start, stop)
        steps = torch.cat([steps[:, :1], steps], dim=1) if lead else steps
        return steps.flatten() + 1

    def all_words(self, step_length: int) -> "Text":
        """Silence, which is one vector of zeros, and every caption after it."""
        states = F.pad(self.embeddings, (0, 0, 0, 0, 1, 0))
        mask = (states != 0).any(-1)
        mask[:, 0] = True
        return Text(states, mask, step_length)

    def words(self, start: int, stop: int, step_length: int, lead: int = 0) -> "Text":
        """What the slots of time steps start .. stop - 1, and `lead` before them, attend to."""
        said, every = self.numbers(start, stop, lead), self.all_words(step_length)
        return Text(every.states[said], every.mask[said], step_length, lead)

    def check(self, batch: int, num_tokens: int, width: int) -> None:
        """BadInput unless it has these shapes; 0 tokens for any number."""
        given = tuple(self.embeddings.shape[1:])
        if given != (num_tokens or given[0], width) or self.index.shape[1] < 1:
            raise BadInput(
                f"text of {given} (tokens, width), but the model reads "
                f"({num_tokens or 'any'}, {width}); use the encoder that it was trained with"
            )
        if len(self.index) != batch:
            raise BadInput(f"text for {len(self.index)} examples of {batch}; give it for each")


class Text(NamedTuple):
    """Captions as cross-attention reads them, one for each time step of each example.

    Attributes:
        states: of the encoder, one per token.
        mask: the tokens that count, at least one of each caption.
        step_length: slots of a time step, all of which attend to its caption.
        lead: slots before the first of the steps; where there are any, the first caption is theirs.
    """

    states: Float[Tensor, "said word context"]
    mask: Bool[Tensor, "said word"]
    step_length: int
    lead: int = 0


class TextSlots(nn.Module):
    """What a sequence holds in its text slots: the encoder's vectors, projected."""

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
        """Of time steps start .. stop - 1, without positions; `nothing` where nothing is said."""
        said = self.project(text.embeddings.to(self.project.weight.dtype))
        blank = nothing.to(said.dtype).expand(1, *said.shape[1:])
        return torch.cat([blank, said])[text.steps(start, stop) + 1]


class TextVector(nn.Module):
    """What every cell of a frame is told: the mean of its caption's tokens, projected.

    Where nothing is said, nothing is added.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim, bias=False)

    def forward(
        self, captions: TextContext, start: int, stop: int
    ) -> Float[Tensor, "batch step 1 dim"]:
        """Of time steps start .. stop - 1."""
        tokens = captions.embeddings
        count = (tokens != 0).any(-1).sum(1, keepdim=True).clamp(min=1)
        told = self.project((tokens.sum(1) / count).to(self.project.weight.dtype))
        told = F.pad(told, (0, 0, 1, 0))
        return told[captions.steps(start, stop) + 1][:, :, None]
