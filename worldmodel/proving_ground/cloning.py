"""An action expert on frozen tokens: behaviour cloning with a Gaussian head."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from drives.actions.units import REWARD
from drives.tokens.drive import TokenDrive
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from training.errors import BadInput
from training.optimization.one_cycle import one_cycle
from worldmodel.dynamics.factors import Factors
from worldmodel.env.controls import SPEED
from worldmodel.evaluation.values.rewards import rewarded
from worldmodel.proving_ground.config import CLONED, CloningConfig
from worldmodel.proving_ground.policies import COMMANDS, MOST_THROTTLE, Commands, Driver, DriverView

CHECK_EVERY = 50
LEAST_STD = 0.05  # of a standardised command


class ActionExpert(nn.Module):
    """Steering, throttle and brake from the tokens of the newest frames and the speed.

    The last commands are not shown: a clone that sees them repeats them (de Haan et al. 2019,
    arXiv 1905.11979).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: TokenSpec, config: CloningConfig) -> None:
        super().__init__()
        self.embed = token_vectors(spec)
        wide = config.num_frames * spec.tokens_per_step * self.embed.embedding_dim
        self.drop = nn.Dropout(config.dropout)
        self.tokens, self.speed = nn.Linear(wide, config.hidden), nn.Linear(1, config.hidden)
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 2 * len(COMMANDS)),
        )
        self.num_frames = config.num_frames
        self.register_buffer("mean", torch.zeros(len(COMMANDS)))
        self.register_buffer("std", torch.ones(len(COMMANDS)))

    def forward(
        self, tokens: Int[Tensor, "car time rows columns"], speed_mps: Float[Tensor, " car"]
    ) -> tuple[Commands, Commands]:
        """Mean and standard deviation of the standardised commands."""
        x = self.drop(self.embed(tokens).flatten(1))
        x = self.tokens(x) + self.speed(speed_mps[:, None] / 10 - 1)
        mean, spread = self.layers(x).chunk(2, -1)
        return mean, F.softplus(spread) + LEAST_STD

    def loss(
        self,
        tokens: Int[Tensor, "car time rows columns"],
        speed_mps: Float[Tensor, " car"],
        commands: Commands,
    ) -> Float[Tensor, ""]:
        """Negative log-likelihood of the Gaussian, without its constant."""
        mean, std = self(tokens, speed_mps)
        target = (commands - self.mean) / self.std
        return (((target - mean) / std) ** 2 / 2 + std.log()).sum(-1).mean()

    def act(
        self, tokens: Int[Tensor, "car time rows columns"], speed_mps: Float[Tensor, " car"]
    ) -> Commands:
        """The mean command, within what a car takes."""
        mean, _ = self(tokens, speed_mps)
        commands = mean * self.std + self.mean
        low, high = commands.new_tensor([-1.0, 0, 0]), commands.new_tensor([1.0, MOST_THROTTLE, 1])
        return commands.clamp(low, high)


def token_vectors(spec: TokenSpec) -> nn.Embedding:
    """The digits of a token, from -1 to 1, where it has some: frozen, and alike for like patches.

    Tokens without digits get vectors that are learned.
    """
    if not spec.factors:
        return nn.Embedding(spec.vocab_size, 16)
    digits = Factors(spec.factors, spec.vocab_size).split(torch.arange(spec.vocab_size))
    most = torch.tensor(spec.factors) - 1
    return nn.Embedding.from_pretrained(2 * digits / most.clamp(min=1) - 1)


@dataclass(frozen=True)
class ClonedPolicy:
    """Drives as an action expert thinks that the drivers of its drives would."""

    network: ActionExpert = field(repr=False)
    name: str = CLONED

    def driver(self, num_cars: int, seed: int, device: str) -> Driver:
        network = copy.deepcopy(self.network).to(device)

        @torch.inference_mode()
        def drive(seen: DriverView) -> Commands:
            tokens = seen.tokens[:, -network.num_frames :]
            missing = network.num_frames - tokens.shape[1]
            tokens = torch.cat([tokens[:, :1].expand(-1, missing, -1, -1), tokens], 1)
            return network.act(tokens, seen.speed_mps)

        return drive


def clone(store: TokenStore, config: CloningConfig, device: str) -> ClonedPolicy:
    """Learn the commands of the train drives; the step that fits the val drives best is kept.

    Raises:
        BadInput: the store lacks a command, the speed or val drives, or has too few frames.
    """
    missing = {*COMMANDS, SPEED} - set(store.action_names)
    if missing:
        raise BadInput(f"cloning: {store.root} has no column {sorted(missing)[0]!r}")
    train, held_out = (
        [part.to(device) for part in _examples(store, drives, config, config.best_share)]
        for drives in map(store.drives, ("train", "val"))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = ActionExpert(store.spec, config)
        network.mean, network.std = train[2].mean(0).cpu(), train[2].std(0).clamp(min=1e-4).cpu()
        network.to(device)
        _fit(network, train, held_out, config)
    return ClonedPolicy(network.cpu().eval().requires_grad_(False))


def _fit(
    network: ActionExpert,
    train: Sequence[Tensor],
    held_out: Sequence[Tensor],
    config: CloningConfig,
) -> None:
    best, kept = float("inf"), network.state_dict()

    def loss_of(rows: Int[Tensor, " row"]) -> Float[Tensor, ""]:
        return network.loss(*(part[rows] for part in train))

    sizes = len(train[0]), config.batch_size, config.learning_rate, config.steps
    for step in one_cycle(network.parameters(), loss_of, *sizes, weight_decay=0.05):
        if step and (step % CHECK_EVERY == 0 or step == config.steps):
            network.eval()
            with torch.no_grad():
                error = float(network.loss(*held_out))
            network.train()
            if error < best:
                best, kept = error, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)


def _examples(
    store: TokenStore, drives: Sequence[TokenDrive], config: CloningConfig, best_share: float
) -> list[Tensor]:
    """Newest frames, the speed that is known then, and the commands that followed."""
    count, rows, columns = store.spec.grid
    steps_ahead = max(1, round(1 / store.spec.step_s))
    least = max(2, config.num_frames)
    parts, earned = [], []
    for drive in drives:
        if drive.damage or drive.num_steps <= least + steps_ahead:
            continue
        stacks, _ = rewarded([drive], 0, (count * rows, columns), config.num_frames, every=1)
        actions = torch.from_numpy(np.array(drive.actions, np.float32))
        num = len(stacks)  # frame t, row t - 1 led to it, row t follows
        before, after = actions[-1 - num : -1], actions[-num:]
        places = [store.action_names.index(name) for name in COMMANDS]
        parts.append([stacks, before[:, store.action_names.index(SPEED)], after[:, places]])
        gained = np.zeros(num)
        if REWARD in store.columns:
            rewards = np.array(drive.columns[-num:, store.columns.index(REWARD)], np.float64)
            gained = np.convolve(rewards, np.ones(steps_ahead))[steps_ahead - 1 :]
        earned.append(gained)
    if not parts:
        raise BadInput(f"cloning: no whole drive of {store.root} is long enough")
    joined = [torch.cat(side) for side in zip(*parts, strict=True)]
    gained = np.concatenate(earned)
    kept = torch.from_numpy(gained >= np.quantile(gained, 1 - best_share))
    return [side[kept] for side in joined]
