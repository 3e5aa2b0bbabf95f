"""On a GPU all tensors are there: shown without one, by tensors of a device and no values."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_gpt import LAYOUTS, POSITIONS, SPEC
from torch.utils._python_dispatch import TorchDispatchMode

from training.planner.memory import _FakeMode
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import open_decoder
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.model import GPTConfig
from worldmodel.dynamics.gpt.one_position import OnePosition
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="a build without CUDA")
SHAPE = {"dim": 24, "num_layers": 2, "num_heads": 2, "context_steps": 4}
GPTS = {
    f"gpt, {layout}, {positions}": GPTConfig(
        **SHAPE, positions=positions, layout=LayoutConfig(actions=layout, num_bins=8)
    )
    for layout in LAYOUTS
    for positions in POSITIONS
}
ACTING = LayoutConfig(actions="continuous")
OTHERS = {
    "whole-frame": WholeFrameConfig(**SHAPE, layout=ACTING),
    "whole-frame, inner layers": WholeFrameConfig(**SHAPE, inner_layers=2, layout=ACTING),
    "masked": MaskedConfig(**SHAPE, layout=ACTING),
}
KINDS = {**GPTS, **OTHERS}


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Tensors without values; a graph is not recorded, what it would replay runs."""

    def run(self: OnePosition) -> None:
        self.out = self._run()

    monkeypatch.setattr(OnePosition, "_capture", run)
    with _FakeMode() as mode:
        yield mode


class Copies(TorchDispatchMode):
    """Counts copies from the host to the device; the host waits for each of them."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            given = [x.device.type for x in args if isinstance(x, torch.Tensor)]
            self.count += out.device.type == "cuda" and "cpu" in given
        return out


def clip(time: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.zeros(2, time, *SPEC.grid[1:], dtype=torch.int64, device="cuda")
    return tokens, torch.zeros(2, time + 3, 2, device="cuda")


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_scores_stay_on_the_device(kind: str, mode: Any) -> None:
    with torch.device("cuda"):
        model = build_dynamics(KINDS[kind], SPEC, 2)
    tokens, actions = clip(4)
    drop = torch.zeros(2, dtype=torch.bool, device="cuda")
    for _ in range(2):
        with Copies() as copies:
            assert model.loss(tokens, actions, drop).device.type == "cuda"
    # The masked kind draws what it masks on the host.
    assert copies.count == (3 if kind == "masked" else 0)
    assert model.eval().score(tokens, actions).nats.device.type == "cuda"


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_copies_nothing_but_random_numbers_to_the_device(kind: str, mode: Any) -> None:
    with torch.device("cuda"):
        model = build_dynamics(KINDS[kind], SPEC, 2).eval()
    tokens, actions = clip(2)
    decoder = open_decoder(model, Sampling(top_k=5, top_p=0.9))
    decoder.start(tokens, actions, num_futures=2)
    for step in range(4):  # beyond the context
        given = actions[:, 1 + step].repeat_interleave(2, dim=0)
        with Copies() as copies:
            assert decoder.next_frame(given).device.type == "cuda"
        assert copies.count <= 2
