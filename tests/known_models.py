"""World models of the known-entropy world whose scores are known."""

import math

import numpy as np
import torch
from torch import nn

from worldmodel.dynamics.base import Dynamics, TokenScores
from worldmodel.known_entropy.world import KnownEntropyWorld


class KnownModel(Dynamics):
    """What scores windows of a world; frame 0 is uniform for all.

    Args:
        kind: "oracle" (sees actions), "deaf" (the best that reads no actions, though it is given
            them), "uniform", "copy" (the best that believes that nothing ever turns).
    """

    conditioned, num_actions, first_target_step = True, 1, 1

    def __init__(self, kind: str, world: KnownEntropyWorld | None = None) -> None:
        nn.Module.__init__(self)  # it has no layers, so no config
        self.kind, self.world = kind, world or KnownEntropyWorld()
        self.spec = self.world.spec

    def score(self, tokens, actions=None, drop_actions=None, captions=None) -> TokenScores:
        ids, vocab = tokens.numpy(), self.spec.vocab_size
        uniform = np.full(ids.shape, math.log(vocab))
        if self.kind != "uniform":
            given = {"oracle": actions, "copy": 0 * actions, "deaf": None}[self.kind]
            # Actions that the world cannot have are believed as the nearest that it can.
            given = None if drop_actions is not None and drop_actions.all() else given
            told = None if given is None else given.round().clamp(-1, 1).numpy()
            uniform[:, 1:] = self.world.optimal_nll(ids, told)
        nats = torch.from_numpy(uniform).flatten(2)
        return TokenScores(nats, nats < math.log(2), (-nats).exp(), None)

    def loss(self, tokens, actions=None, drop_actions=None, captions=None):
        return self.score(tokens, actions).nats[:, 1:].mean()

    def num_parameters(self, embeddings: bool = True) -> int:
        return 0

    def flops(self, num_clips: int, num_steps: int, causal: bool = False) -> float:
        return 0.0
