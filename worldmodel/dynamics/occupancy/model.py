"""The occupancy model: one sample is a frame of the discounted future (a gamma-model).

    p(x | s_t) = (1 - gamma) p_1(x | s_t) + gamma E[p(x | s_(t+1))]                       (1)

p_1 is the one-step distribution of the data, s_t the newest frames up to t. So x lies k steps
ahead with probability (1 - gamma) gamma^(k - 1), and nothing is rolled out. Training minimises the
cross entropy of a sample of the right-hand side, in which a slowly moving copy, the target
network, stands for p: temporal differences, as for values (Janner et al. 2020, arXiv 2010.14496,
equation 6; Video Occupancy Models, arXiv 2407.09533; github.com/manantomar/video-occupancy-models).
x is a frame, or a stack of consecutive frames up to the one that lies k steps ahead, some of which
may be of the state. With a `horizon` of h real frames, (1) is unrolled h times before p is used:

    k steps ahead, k <= h, with probability (1 - gamma) gamma^(k - 1);  else a sample of
    p(x | s_(t+h)).                                                                      (2)

The actions after those of the first step are the data's: the future is that of the policy that
drove.
"""

import copy
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from training.optimization.averaging import average_
from training.optimization.optimizers import block_matrices
from worldmodel.decoding.config import Sampling
from worldmodel.decoding.raster import Decoder
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.dynamics.occupancy.config import OccupancyConfig
from worldmodel.dynamics.scores import TokenScores
from worldmodel.dynamics.text import TextContext


class Occupancy(Dynamics):
    """A GPT of the discounted future, and the target network that it is bootstrapped from.

    Attributes:
        online: the network that is trained and asked.
        target: its moving average; it samples the bootstraps and has no gradient.
    """

    config: OccupancyConfig
    shardable = False

    def __init__(self, config: OccupancyConfig, spec: TokenSpec, num_actions: int) -> None:
        super().__init__(config, spec, num_actions)
        self.online = GPT(config.trunk, spec, num_actions)
        if config.whole_sequence:
            self.online.first_token = 0 if self.layout.predicts_first else 1
        # A copy draws no random numbers: the online network starts as a GPT of the same seed.
        self.target = copy.deepcopy(self.online).requires_grad_(False).eval()

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        return self.online.blocks

    @property
    def recompute(self) -> bool:
        return self.online.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.online.recompute = value

    @property
    def state_steps(self) -> int:  # type: ignore[override]
        return self.config.state_steps

    @property
    def sample_steps(self) -> int:  # type: ignore[override]
        return self.config.stack

    def train(self, mode: bool = True) -> "Occupancy":
        """The target network always samples without dropout."""
        super().train(mode)
        self.target.eval()
        return self

    def check(self, tokens: Tensor, actions: Tensor | None, captions: TextContext | None) -> None:
        """BadInput unless a window holds a state and a real frame, and fits the model."""
        super().check(tokens, actions, captions)
        if tokens.shape[1] <= self.state_steps:
            raise BadInput(
                f"{tokens.shape[1]} frames: the state of this occupancy model has "
                f"{self.state_steps}, and at least one frame follows it; give longer clips"
            )

    def loss(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> Float[Tensor, ""]:
        """Cross entropy of samples of (2): of a state and its target, in nats per token.

        Args:
            actions: as `Dynamics.loss`; a bootstrap reads row time - 1 as well.
        """
        self.check(tokens, actions, captions)
        targets = self.targets(tokens, actions, drop_actions, captions)
        return self.loss_of(tokens, targets, actions, drop_actions, captions)

    def loss_of(
        self,
        tokens: Int[Tensor, "batch time height width"],
        targets: Int[Tensor, "batch stack height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        *conditions: Any,
    ) -> Float[Tensor, ""]:
        """The loss of given targets; `conditions` are the further arguments of `loss`."""
        sequence = torch.cat([tokens[:, : self.state_steps], targets], dim=1)
        return self.online.loss(sequence, self.acted(actions), *conditions)

    def stack_of(
        self, tokens: Int[Tensor, "batch time height width"], later: Int[Tensor, " batch"] | int
    ) -> Int[Tensor, "batch stack height width"]:
        """The real sample whose newest frame is the first one after the state, or `later`."""
        newest = torch.as_tensor(later, device=tokens.device).expand(len(tokens)) + self.state_steps
        back = torch.arange(1 - self.sample_steps, 1, device=tokens.device)
        examples = torch.arange(len(tokens), device=tokens.device)
        return tokens[examples[:, None], newest[:, None] + back]

    def acted(
        self, actions: Float[Tensor, "batch step action"] | None
    ) -> Float[Tensor, "batch step action"] | None:
        """Rows of the state; the last of them is that of every frame of a sample."""
        if actions is None or not self.conditioned or self.sample_steps == 1:
            return actions
        last = actions[:, self.state_steps - 1 : self.state_steps]
        return torch.cat([actions[:, : self.state_steps], *[last] * (self.sample_steps - 1)], dim=1)

    @torch.no_grad()
    def targets(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> Int[Tensor, "batch stack height width"]:
        """A sample of (2) for every window, by torch's generator; none is drawn for gamma 0."""
        horizon = tokens.shape[1] - self.state_steps
        if not self.config.gamma:
            return self.stack_of(tokens, 0)
        goes_on = torch.rand(len(tokens), horizon, device=tokens.device) < self.config.gamma
        jumps = goes_on.long().cumprod(dim=1).sum(dim=1)
        real = self.stack_of(tokens, jumps.clamp(max=horizon - 1))
        rows = (jumps == horizon).nonzero()[:, 0]
        if not len(rows):
            return real
        real[rows] = self.bootstrap(
            tokens[rows, horizon:],
            None if actions is None else actions[rows, horizon:],
            None if drop_actions is None else drop_actions[rows],
            captions and captions.from_step(horizon).rows(rows),
            Sampling(top_k=self.config.bootstrap_top_k, seed=int(torch.randint(2**62, ()))),
        )
        return real

    @torch.no_grad()
    def bootstrap(
        self,
        state: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None,
        drop_actions: Bool[Tensor, " batch"] | None,
        captions: TextContext | None,
        sampling: Sampling,
    ) -> Int[Tensor, "batch stack height width"]:
        """A sample of the discounted future of every state, by the target network.

        Args:
            actions: one row per frame of the state; the last one follows it.

        Raises:
            BadInput: the model reads actions, and the last row is missing.
        """
        action = None
        if self.conditioned and actions is not None:
            if actions.shape[1] < state.shape[1]:
                raise BadInput(
                    f"{actions.shape[1]} action rows for a state of {state.shape[1]} frames: the "
                    "target network reads the action after it too; give one row per frame"
                )
            action = actions[:, state.shape[1] - 1]
        decoder = Decoder(self.target, sampling)
        decoder.fixed_shapes = False  # one short future: recording a graph would cost more
        decoder.start(state, actions, 1, drop_actions, captions)
        frames = [decoder.next_frame(action) for _ in range(self.sample_steps)]
        return torch.stack(frames, dim=1).clone()  # a tensor of inference has no place in a graph

    def after_step(self) -> None:
        """Move the target network by an optimizer step."""
        pairs = list(self.target.parameters()), list(self.online.parameters())
        average_(*pairs, decay=self.config.target_decay)

    def score(
        self,
        tokens: Int[Tensor, "batch time height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        drop_actions: Bool[Tensor, " batch"] | None = None,
        captions: TextContext | None = None,
    ) -> TokenScores:
        """Scores of every frame after the state, as a frame of the discounted future.

        All are given the state alone, not each other. Frames of the state are predicted one step
        ahead. The nats of a stack are the mean over its frames, the rest is its newest frame's.
        """
        self.check(tokens, actions, captions)
        state = tokens[:, : self.state_steps]
        parts: list[TokenScores] = []
        for step in range(tokens.shape[1] - self.state_steps):
            sample = self.stack_of(tokens, step)
            scores = self.score_sample(state, sample, actions, drop_actions, captions)
            parts.append(scores.last() if parts else scores)
        return TokenScores.joined(parts)

    def score_sample(
        self,
        state: Int[Tensor, "batch time height width"],
        sample: Int[Tensor, "batch stack height width"],
        actions: Float[Tensor, "batch step action"] | None = None,
        *conditions: Any,
    ) -> TokenScores:
        """Scores of the frames of a state, and as one more frame of a sample after it."""
        sequence = torch.cat([state, sample], dim=1)
        scores = self.online.score(sequence, self.acted(actions), *conditions)
        return scores.merged(self.state_steps)

    def mean_nats(self, scores: TokenScores) -> Float[Tensor, ""]:
        """Nats per token of the frames after the state, by how probable each step ahead is."""
        nats = scores.nats[:, self.state_steps :].mean(dim=(0, 2))
        ahead = torch.arange(len(nats), device=nats.device)
        weights = self.config.gamma**ahead
        return (weights * nats).sum() / weights.sum()

    def block_kernels(self) -> dict[str, nn.Parameter]:
        """The matrices of the online network that Muon steps, by name."""
        return {f"online.{name}": matrix for name, matrix in block_matrices(self.online).items()}

    def lr_multipliers(self) -> dict[str, float]:
        """Learning rate of every parameter as a multiple of `optimizer.lr`."""
        return {f"online.{name}": rate for name, rate in self.online.lr_multipliers().items()}

    def num_parameters(self, embeddings: bool = True) -> int:
        """Number of parameters of the online network; the target network has as many again."""
        return self.online.num_parameters(embeddings)

    def flops(self, num_clips: int, num_steps: int, causal: bool = False) -> float:
        """Those of the GPT on a state and a target; and its forward pass for each bootstrap."""
        trained = self.online.flops(num_clips, self.state_steps + self.sample_steps, causal)
        horizon = max(1, num_steps - self.state_steps)
        return trained * (1 + self.config.gamma**horizon / 3)
