"""What the page asks for, as plain values; it knows nothing of HTTP."""

import base64
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drives.actions.derived import LEFT
from training.errors import BadInput
from training.ranges import at_least, within
from worldmodel.drive.recording import FORMS, save
from worldmodel.env.controls import PEDALS, SPEED
from worldmodel.env.dream import Dream
from worldmodel.env.world import DreamWorld

MOST_DREAMS = 8
CLIPS = 4  # of every drive in the list
MAX_SEED = 2**31


class DriveSession:
    """One driver's dreams.

    Args:
        rate: time steps per second that the page asks for.
        out: folder of what is saved.
    """

    def __init__(self, world: DreamWorld, dream: Dream, rate: float, out: Path) -> None:
        self.world, self.dream, self.rate, self.out = world, dream, rate, out
        self.saved: dict[str, Path] = {}
        self.shows_real = False
        self.asks: dict[str, Callable[..., dict[str, Any]]] = {
            "describe": self.describe,
            "look": self._state,
            "start": self.start,
            "step": self.step,
            "rewind": self.rewind,
            "branch": self.branch,
            "keep": self.keep,
            "say": self.say,
            "save": self.save,
        }
        self.clips = self.world.starts.of_drives(CLIPS)
        self.start(self.clips[0])

    def ask(self, what: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one question of the page by name; `real` asks for the recording's frame as well.

        Raises:
            BadInput: there is no such question, or its values do not fit.
        """
        values = dict(values)
        self.shows_real = bool(values.pop("real", False))
        if what not in self.asks:
            raise BadInput(f"{what[:40]!r}: the page has no such question")
        try:
            return self.asks[what](**values)
        except TypeError as error:
            raise BadInput(f"{what}: {error}") from error

    def describe(self) -> dict[str, Any]:
        """What the page shows before the first step."""
        model, spec = self.world.model, self.world.model.spec
        return {
            "model": model.path.name,
            "kind": type(model.network).__name__,
            "rate": self.rate,
            "data_rate": self.world.fps,
            "columns": self._columns(),
            "frames": self.world.tokenizer is not None,
            "text": self.dream.texts is not None,
            "grid": list(self.dream.grids[0].shape[1:]),
            "image": list(spec.image_size),
            "most_bits": math.log2(spec.vocab_size),
            "clips": [{"number": n, "name": self.world.starts.name(n)} for n in self.clips],
            "num_clips": len(self.world.starts),
            "seed": self.dream.seed,
            "forms": [form for form in FORMS if self.world.tokenizer is not None],
            **self._state(),
        }

    def start(self, clip: int, seed: int | None = None) -> dict[str, Any]:
        """Begin with a clip by its number; without a seed, with that of the sampling."""
        seed = self.dream.sampling.seed if seed is None else seed
        within(0, MAX_SEED, seed=seed)
        self.dream.start([self.world.starts[clip]], seed)
        return self._state()

    def step(
        self, commands: Sequence[Sequence[float]] | None = None, recorded: bool = False
    ) -> dict[str, Any]:
        """One time step under commands by dream, or under the actions of the recording."""
        began = time.perf_counter()
        outside: list[str] = []
        controls = self.world.controls
        if controls is not None:
            if recorded:
                actions = self._recorded()
            else:
                given = controls.checked(commands, self.dream.num_dreams)
                actions = controls.complete(given, self.dream.newest_actions.cpu().numpy())
            far = np.flatnonzero(controls.outside(actions).any(0))
            outside = [controls.names[place] for place in far]
            self.dream.step(torch.from_numpy(actions))
        else:
            self.dream.step()
        state = self._state(outside)
        return {**state, "ms": 1000 * (time.perf_counter() - began)}

    def rewind(self, num: int) -> dict[str, Any]:
        """Take steps back: as many as there are, at most."""
        at_least(1, num=num)
        if num := min(num, self.dream.num_imagined):
            self.dream.rewind(num)
        return self._state()

    def branch(self, num: int) -> dict[str, Any]:
        """Go on with `num` copies of every dream."""
        within(1, MOST_DREAMS, dreams=num * self.dream.num_dreams)
        self.dream.branch(num)
        return self._state()

    def keep(self, dream: int) -> dict[str, Any]:
        """Go on with one of the dreams."""
        self.dream.keep([dream])
        return self._state()

    def say(self, text: str) -> dict[str, Any]:
        """Caption what comes next."""
        self.dream.say(str(text)[:500])
        return self._state()

    def save(self, form: str, dream: int = 0) -> dict[str, Any]:
        """Write a dream, prompt included, in one of the forms."""
        path = save(self.world, self.dream, dream, form, self.out)
        if path.is_file():
            self.saved[path.name] = path
        return {"path": str(path), "name": path.name if path.is_file() else ""}

    def _columns(self) -> list[dict[str, Any]]:
        controls = self.world.controls
        if controls is None:
            return []
        return [
            {
                "name": name,
                "low": float(controls.low[place]),
                "high": float(controls.high[place]),
                "given": place in controls.commanded,
                "role": _role(name),
                "left": LEFT.get(name, 0.0),
            }
            for place, name in enumerate(controls.names)
        ]

    def _recorded(self) -> np.ndarray:
        """The rows that were driven after the clip; BadInput where the recording ends."""
        rows = []
        for start in self.dream.starts:
            following = start.recorded
            if self.dream.num_imagined >= len(following):
                raise BadInput(f"{start.name}: the recording ends here; drive on yourself")
            rows.append(following[self.dream.num_imagined].numpy())
        return np.stack(rows)

    def _state(self, outside: Sequence[str] = ()) -> dict[str, Any]:
        """The newest time step of all dreams."""
        dream, grid = self.dream, self.dream.grids[-1]
        bits = dream.steps[-1].entropy / math.log(2) if dream.steps else torch.zeros(grid.shape)
        state: dict[str, Any] = {
            "time": dream.num_imagined,
            "clip": dream.starts[0].name,
            "dreams": dream.num_dreams,
            "tokens": grid.flatten(1).tolist(),
            "bits": [[round(x, 2) for x in row] for row in bits.flatten(1).tolist()],
            "actions": [[round(float(x), 4) for x in row] for row in dream.newest_actions.tolist()],
            "outside": list(outside),
        }
        if self.world.tokenizer is not None:
            frames = dream.frames().permute(0, 1, 3, 4, 2).contiguous().cpu().numpy()
            state["pixels"] = base64.b64encode(frames.tobytes()).decode()
            state["shape"] = list(frames.shape)
            state["real"] = self._real() if self.shows_real else ""
        return state

    def _real(self) -> str:
        """The frame of the recording now, decoded as the dream's; "" where there is none."""
        start, decoders, num = self.dream.starts[0], self.dream.pixels, self.dream.num_imagined
        if decoders is None or decoders.reads_past or num > len(start.after):
            return ""
        later = torch.from_numpy(np.asarray(start.after[:num], np.int64))
        grids = torch.cat([start.tokens, later]).to(self.dream.device)
        frame = decoders.newest(grids[:, None].unbind(), [])[0, 0]
        pixels = frame.permute(1, 2, 0).contiguous().cpu().numpy()
        return base64.b64encode(pixels.tobytes()).decode()


def _role(name: str) -> str:
    """What moves a column: "turn", a pedal, "speed" or "other"."""
    if name in LEFT:
        return "turn"
    if name in PEDALS:
        return name
    return "speed" if name == SPEED else "other"
