"""A small network that reads the action off two frames, and judges predicted frames by it."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call

CHANNELS, HIDDEN = 32, 64
POOLED = (2, 4)


class ActionReader(nn.Module):
    """Actions, in deviations, from a frame and the tokens or the distribution of the next.

    It learns from recorded frames alone, and is held fixed where it reads predictions. Learned
    from predictions, it would read a code that hides the action in harmless probabilities.
    """

    def __init__(self, vocab_size: int, grid: tuple[int, int], num_actions: int) -> None:
        super().__init__()
        self.grid = grid
        self.embed = nn.Embedding(vocab_size, CHANNELS)
        self.layers = nn.Sequential(
            nn.Conv2d(2 * CHANNELS, HIDDEN, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(POOLED),
            nn.Flatten(),
            nn.Linear(HIDDEN * POOLED[0] * POOLED[1], num_actions),
        )

    def forward(
        self, before: Int[Tensor, "frame space"], after: Tensor
    ) -> Float[Tensor, "frame action"]:
        """The action between two frames.

        Args:
            after: tokens [frame space], or their probabilities [frame space vocab].
        """
        is_tokens = after.dtype == torch.int64
        new = self.embed(after) if is_tokens else after @ self.embed.weight
        old = self.embed(before)
        cells = torch.cat([new - old, old], dim=-1)
        out: Tensor = self.layers(cells.mT.unflatten(-1, self.grid))
        return out

    def errors(
        self,
        tokens: Int[Tensor, "batch time space"],
        logits: Float[Tensor, "batch predicted space vocab"],
        actions: Float[Tensor, "batch predicted action"],
        drop_actions: Bool[Tensor, " batch"] | None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean squared error on recorded frames, and of predicted frames.

        The first trains this network alone, the second the logits alone.

        Args:
            logits: of the last time steps.
            actions: in deviations; each leads to one of those steps.
            drop_actions: examples whose predictions do not count, as they read no action.
        """
        steps = logits.shape[1]
        before = tokens[:, -steps - 1 : -1].flatten(0, 1)
        real = tokens[:, -steps:].flatten(0, 1)
        wanted = actions.flatten(0, 1)
        learning = F.mse_loss(self(before, real), wanted)
        fixed = {name: parameter.detach() for name, parameter in self.named_parameters()}
        probs = logits.float().softmax(-1).flatten(0, 1)
        read = functional_call(self, fixed, (before, probs))
        judged = (read - wanted).square().mean(1).unflatten(0, (len(tokens), steps)).mean(1)
        if drop_actions is None:
            return learning, judged.mean()
        kept = ~drop_actions
        return learning, (judged * kept).sum() / kept.sum().clamp(min=1)
