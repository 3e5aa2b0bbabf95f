"""Steps that are not finite never happen, and nobody waits to find out."""

import pytest
import torch
from torch import nn

from training.config import AdamWConfig
from training.optimization.optimizers import build_optimizer
from training.watch.gradients import FiniteGuard, NonFinite, refuse


class Stepper:
    """A layer that is trained with the guard, one call per step."""

    def __init__(self, max_skipped: int = 0, clip_norm: float = 1.0) -> None:
        torch.manual_seed(0)
        self.net = nn.Linear(4, 4)
        self.optimizer, _ = build_optimizer(self.net, AdamWConfig(lr=0.1, warmup_steps=0), 100)
        self.guard, self.clip_norm, self.step = FiniteGuard(max_skipped), clip_norm, 0

    def __call__(self, spoil: str = "") -> torch.Tensor:
        self.net.zero_grad()
        loss = self.net(torch.ones(2, 4)).square().sum()
        self.guard.see(loss * float("inf") if spoil == "loss" else loss)
        loss.backward()
        if spoil == "gradient":
            self.net.weight.grad[1, 2] = float("nan")
        norm = self.guard.clip(self.net.parameters(), self.optimizer, self.clip_norm, self.step)
        self.optimizer.step()
        self.step += 1
        return norm

    def state(self) -> list[torch.Tensor]:
        moments = [v for s in self.optimizer.state.values() for v in s.values()]
        return [t.clone() for t in (*self.net.parameters(), *moments)]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("spoil", ["loss", "gradient"])
def test_a_bad_step_moves_neither_parameters_nor_moments(spoil):
    step = Stepper(max_skipped=1)
    step()
    before = step.state()
    step(spoil)
    assert same(before, step.state())
    assert step.guard.poll() == 1
    step()
    assert not same(before, step.state())
    assert step.guard.poll() is None
    assert step.guard.skipped == 1


def test_without_permission_the_first_bad_step_halts_everything_after_it():
    step = Stepper(max_skipped=0)
    step()
    before = step.state()
    step("gradient")
    step()  # the host does not know yet
    assert same(before, step.state())
    with pytest.raises(NonFinite, match="step 1: loss or gradient is not finite"):
        step.guard.poll()


def test_more_bad_steps_in_a_row_than_allowed_halt():
    step = Stepper(max_skipped=2)
    for spoil in ("loss", "", "loss", "loss"):
        step(spoil)
    step.guard.poll()
    assert step.guard.skipped == 3
    step("loss")
    with pytest.raises(NonFinite, match=r"step 4: .*3 in a row"):
        step.guard.poll()


def test_a_loss_seen_in_any_accumulated_batch_counts():
    step = Stepper(max_skipped=1)
    step.guard.see(torch.tensor(float("nan")))
    before = step.state()
    step()
    assert same(before[:2], step.state()[:2])


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_clipping_is_that_of_torch(clip_norm):
    step, other = Stepper(clip_norm=clip_norm), Stepper()
    norm = step()
    other.net(torch.ones(2, 4)).square().sum().backward()
    limit = clip_norm or float("inf")
    expected = torch.nn.utils.clip_grad_norm_(other.net.parameters(), limit)
    torch.testing.assert_close(norm, expected)
    for a, b in zip(step.net.parameters(), other.net.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_an_optimizer_that_would_step_all_the_same_is_refused():
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="only fused optimizers"):
        refuse(torch.optim.SGD(layer.parameters(), lr=0.1), torch.ones(()))
