"""Trains an inverse-dynamics model on recordings, and keeps it beside the data.

Training adds still patterns, noise and blur: decoded pictures have them, those of a camera do not.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

from training.errors import BadInput
from worldmodel.evaluation.control.inverse_dynamics import (
    READABLE,
    InverseDynamics,
    InverseDynamicsConfig,
    grey_pictures,
    load,
    readable,
    save,
    width_of,
)

# Frames [time height width 3] uint8 and actions [time column]; row t leads to frame t + 1.
Recording = tuple[UInt8[np.ndarray, "time height width 3"], Float[np.ndarray, "time column"]]
THREADS = 1  # always: sums of another number of threads round otherwise
BANK = 256  # patterns, and pictures of noise, drawn once
MIN_PAIRS = 50


def open_inverse_dynamics(
    folder: Path,
    content: str,
    names: Sequence[str],
    recordings: Callable[[], Iterable[Recording]],
    config: InverseDynamicsConfig | None = None,
) -> InverseDynamics:
    """The model of these recordings, trained on first use and kept in `folder`.

    Args:
        content: a hash of the recordings.
        recordings: opens them; called only if there is no model yet.

    Raises:
        BadInput: as `train_inverse_dynamics`.
    """
    config = config or InverseDynamicsConfig()
    facts = json.dumps([content, list(names), asdict(config)])
    file = folder / f"inverse_dynamics-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    file = file.with_suffix(".safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if file.exists():
            return load(file)
        model = train_inverse_dynamics(recordings(), names, config)
        save(model, file)
    return model


def train_inverse_dynamics(
    recordings: Iterable[Recording],
    names: Sequence[str],
    config: InverseDynamicsConfig | None = None,
) -> InverseDynamics:
    """Train a model of the readable columns that are not always zero; deterministic.

    Raises:
        BadInput: no column can be read, or there are less than 50 pairs of frames.
    """
    config = config or InverseDynamicsConfig()
    with _threads(THREADS):
        data = _Pairs(recordings, names, config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = InverseDynamics(data.names, config, data.pictures[0].shape[-1])
        model.scale.copy_(data.scale)
        _fit(model, data, config)
    return model.eval()


def _fit(model: InverseDynamics, data: "_Pairs", config: InverseDynamicsConfig) -> None:
    rng = torch.Generator().manual_seed(config.seed)
    disturb = _Disturbance(data.pictures[0].shape[-2:], config, rng)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.2
    )
    model.train()
    for _ in trange(config.steps, desc="inverse dynamics", unit="step"):
        first, second, target = data.draw(config.batch_size, rng)
        first, second = disturb(first, second)
        loss = F.smooth_l1_loss(model(first, second), target, beta=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


class _Pairs:
    """Pairs of small grey pictures, and the motion between them.

    Attributes:
        scale: root mean square of each column.
    """

    def __init__(
        self,
        recordings: Iterable[Recording],
        names: Sequence[str],
        config: InverseDynamicsConfig,
    ) -> None:
        chosen = readable(names)
        columns = [list(names).index(name) for name in chosen]
        self.pictures: list[UInt8[Tensor, "time h w"]] = []
        rows, width = [], None
        for frames, actions in recordings:
            width = width or width_of(frames.shape[1:3], config.height)
            self.pictures.append(grey_pictures(frames, config.height, width))
            rows.append(torch.from_numpy(np.asarray(actions[:-1][:, columns], np.float32)))
        total = sum(len(r) for r in rows)
        values = torch.cat(rows) if rows else torch.zeros(0, len(chosen))
        scale = values.square().mean(0).sqrt()
        moved = [i for i in range(len(chosen)) if total and scale[i] > 0]
        if not moved:
            raise BadInput(
                f"actions {', '.join(names)}: pixels show none of them, or none ever moves; give "
                f"one of {', '.join(READABLE)}"
            )
        if total < MIN_PAIRS:
            raise BadInput(
                f"{total} pairs of frames: are too few to learn from; give {MIN_PAIRS} or more"
            )
        self.names, self.scale = [chosen[i] for i in moved], scale[moved]
        self.values = values[:, moved] / self.scale
        self.mirrored = torch.tensor([READABLE[name] for name in self.names])
        ends = torch.tensor([len(r) for r in rows]).cumsum(0)
        self.begins = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1]])
        self.ends = ends

    def draw(self, num: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """First and second pictures [pair 1 h w] and targets; half of them mirrored."""
        index = torch.randint(0, len(self.values), (num,), generator=rng)
        drives = torch.searchsorted(self.ends, index, right=True)
        times = (index - self.begins[drives]).tolist()
        places = list(zip(drives.tolist(), times, strict=True))
        first, second = (
            torch.stack([self.pictures[d][t + later] for d, t in places])[:, None].float()
            for later in (0, 1)
        )
        flip = torch.rand(num, generator=rng) < 0.5
        wide = flip[:, None, None, None]
        first, second = (torch.where(wide, x.flip(-1), x) for x in (first, second))
        target = self.values[index]
        return first, second, torch.where(flip[:, None], target * self.mirrored, target)


class _Disturbance:
    """Adds to pairs what decoders add: a shared pattern, noise of each, and blur.

    First it shifts both alike and changes their contrast, which augments few recordings.
    """

    def __init__(
        self, size: Sequence[int], config: InverseDynamicsConfig, rng: torch.Generator
    ) -> None:
        self.rng, self.noise = rng, config.noise
        drawn = [config.pattern * still_pattern(size, rng) for _ in range(BANK // 2)]
        self.patterns = torch.cat([torch.stack(drawn), torch.zeros(BANK // 2, *size)])[:, None]
        self.pictures = torch.randn(BANK, 1, *size, generator=rng)

    def __call__(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        num = len(first)
        first, second = self._moved(first, second)
        still = self.patterns[torch.randint(0, BANK, (num,), generator=self.rng)]
        loud = self.noise * torch.rand(num, 1, 1, 1, generator=self.rng)
        soft = torch.rand(num, generator=self.rng) < 0.3
        done = []
        for pictures in (first, second):
            own = self.pictures[torch.randint(0, BANK, (num,), generator=self.rng)]
            seen = (pictures + still + loud * own).clamp(0, 255)
            seen[soft] = F.avg_pool2d(seen[soft], 3, 1, 1, count_include_pad=False)
            done.append(seen)
        return done[0], done[1]

    def _moved(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        num, _, height, width = first.shape
        right = torch.randint(-(height // 5), height // 5 + 1, (num, 1), generator=self.rng)
        down = torch.randint(-(height // 16), height // 16 + 1, (num, 1), generator=self.rng)
        rows = (torch.arange(height) + down).clamp(0, height - 1)[:, None, :, None]
        columns = (torch.arange(width) + right).clamp(0, width - 1)[:, None, None]
        pair = torch.arange(num)[:, None, None, None]
        gain = 0.7 + 0.6 * torch.rand(num, 1, 1, 1, generator=self.rng)
        first, second = (x[pair, 0, rows, columns] for x in (first, second))
        return (first - 128) * gain + 128, (second - 128) * gain + 128


def still_pattern(size: Sequence[int], rng: torch.Generator) -> Float[Tensor, "h w"]:
    """A random checkerboard, stripes or blocks of 1 to 8 pixels, of a random strength about 1."""
    height, width = size
    side = 2 ** int(torch.randint(0, 4, (), generator=rng))
    down, right = torch.randint(0, 16, (2,), generator=rng).tolist()
    strength = torch.randn((), generator=rng)
    rows = ((torch.arange(height) + down) // side)[:, None].expand(height, width)
    columns = ((torch.arange(width) + right) // side).expand(height, width)
    kind = int(torch.randint(0, 4, (), generator=rng))
    if kind == 3:
        blocks = torch.randn(int(rows.max()) + 1, int(columns.max()) + 1, generator=rng)
        return blocks[rows, columns] * strength / 2
    cells = (rows + columns, rows, columns)[kind]
    return ((cells % 2) * 2.0 - 1) * strength


@contextmanager
def _threads(num: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)
