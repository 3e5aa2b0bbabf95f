"""Muon beside AdamW: who steps what, refused steps, states that go on."""

import copy
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from training.config import AdamWConfig, MuonConfig
from training.errors import BadInput
from training.optimization import muon
from training.optimization.muon import KernelMuon, MuonWithAdamW
from training.optimization.optimizers import build_optimizer
from training.trainer import check_optimizer
from training.watch.gradients import FiniteGuard

USUAL = {"weight_decay": 0.1, "momentum": 0.95, "ns_steps": 5}


class Blocks(nn.Module):
    """Embedding, blocks and head, as a world model has them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(7, 6)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 12), nn.Linear(12, 6)) for _ in "ab")
        self.head = nn.Linear(6, 7)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def training(config=None, steps=12):
    module = Blocks()
    optimizer, schedule = build_optimizer(module, config or MuonConfig(warmup_steps=2), steps)
    return module, optimizer, schedule


def walk(module, optimizer, schedule, steps, guard=None, bad=()):
    torch.manual_seed(1)
    for step in range(steps):
        ids = torch.randint(7, (5,))
        loss = nn.functional.cross_entropy(module(ids), ids.roll(1))
        loss.backward()
        if step in bad:
            module.blocks[0][0].weight.grad[0, 0] = float("nan")
        if guard is not None:
            guard.clip(module.parameters(), optimizer, 1.0, step)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def state(module, optimizer):
    """Everything that a step may change."""
    return copy.deepcopy([module.state_dict(), optimizer.state_dict()["state"]])


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_muon_steps_the_matrices_of_the_blocks_and_adamw_the_rest():
    module, optimizer, schedule = training()
    walk(module, optimizer, schedule, 3)
    names = {id(p): name for name, p in module.named_parameters()}
    by_muon = {names[id(p)] for p, s in optimizer.state.items() if "momentum_buffer" in s}
    assert by_muon == {f"blocks.{i}.{j}.weight" for i in (0, 1) for j in (0, 1)}
    by_adamw = {names[id(p)] for p, s in optimizer.state.items() if "exp_avg" in s}
    assert by_adamw == set(names.values()) - by_muon


def test_both_follow_the_schedule():
    _, optimizer, _ = training(MuonConfig(lr=1.0, muon_lr=0.5, warmup_steps=3))
    rates = sorted({group["lr"] for group in optimizer.param_groups})
    assert rates == [0.125, 0.25]


@pytest.mark.parametrize("bad", [0, 4])
def test_a_refused_step_changes_nothing(bad):
    """The first one, before there is any momentum, and a later one."""
    module, optimizer, schedule = training()
    guard = FiniteGuard(max_skipped=2)
    walk(module, optimizer, schedule, bad, guard)
    before = state(module, optimizer)
    walk(module, optimizer, schedule, 1, guard, bad={0})
    after = state(module, optimizer)
    same(after[0], before[0])
    for index, values in after[1].items():
        for name, value in values.items():
            known = before[1].get(index, {}).get(name, torch.zeros_like(value))
            same(value, known)
    walk(module, optimizer, schedule, 1, guard)
    assert not torch.equal(module.blocks[0][0].weight, before[0]["blocks.0.0.weight"])


def test_a_finite_step_is_the_same_with_the_guard_as_without():
    ends = []
    for guard in (None, FiniteGuard()):
        module, optimizer, schedule = training(MuonConfig(clip_norm=0.0))
        if guard is not None:
            guard.clip(module.parameters(), optimizer, 0.0, 0)
        walk(module, optimizer, schedule, 4)
        ends.append(state(module, optimizer))
    same(ends[0], ends[1])


def test_a_loaded_state_goes_on_bit_for_bit():
    module, optimizer, schedule = training()
    walk(module, optimizer, schedule, 4)
    saved = copy.deepcopy([x.state_dict() for x in (module, optimizer, schedule)])
    walk(module, optimizer, schedule, 4)
    again = training()
    for part, values in zip(again, saved, strict=True):
        part.load_state_dict(values)
    walk(*again, 4)
    same(state(*again[:2]), state(module, optimizer))


def test_widths_transfer_the_rate_of_muon_as_it_is(monkeypatch):
    multiples = {"head.weight": 0.5, "blocks.0.0.weight": 0.25}
    monkeypatch.setattr(Blocks, "lr_multipliers", lambda self: multiples, raising=False)
    module, optimizer, _ = training(MuonConfig(lr=0.4, muon_lr=0.1, warmup_steps=0))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(module.head.weight)] == pytest.approx(0.2)
    assert rates[id(module.blocks[0][0].weight)] == pytest.approx(0.1)


def test_a_network_without_blocks_is_refused():
    with pytest.raises(BadInput, match="optimizer=muon: a Linear has no blocks"):
        build_optimizer(nn.Linear(2, 2), MuonConfig(), 10)


def test_adamw_is_as_it_was():
    _, optimizer, _ = training(AdamWConfig())
    assert type(optimizer) is torch.optim.AdamW
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 11


def test_a_run_with_muon_goes_on_bit_for_bit(composed, fit, tmp_path):
    few = ("trainer.val_check_interval=4", "checkpoints.every_steps=2", "callbacks.media=null")
    asked = ("gpt_tiny", "+debug=fast", "optimizer=muon", "trainer.max_steps=4", *few)
    whole, _, trainer = fit(composed(*asked, f"run={tmp_path}/whole"))
    assert isinstance(trainer.optimizers[0], MuonWithAdamW)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(max((tmp_path / "cut/checkpoints").iterdir()))
    again, _, _ = fit(composed(*asked, f"run={tmp_path}/cut"))
    same(again.state_dict(), whole.state_dict())


def test_shards_are_refused(composed):
    cfg = composed("gpt_tiny", "optimizer=muon", "trainer=fsdp")
    with pytest.raises(BadInput, match="optimizer=muon with trainer=fsdp"):
        check_optimizer(cfg, SimpleNamespace(optimizer_config=MuonConfig(), trained=Blocks()))


def test_kernels_are_stepped_as_matrices_with_a_row_per_output_channel():
    torch.manual_seed(0)
    matrix = nn.Parameter(torch.randn(6, 18))
    kernel = nn.Parameter(matrix.detach().view(6, 2, 3, 3).clone())
    ends = []
    for parameter in (matrix, kernel):
        adamw = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], fused=True)
        optimizer = MuonWithAdamW(adamw, KernelMuon([parameter], lr=0.1, **USUAL))
        for step in range(3):
            torch.manual_seed(step)
            parameter.grad = torch.randn(6, 18).view_as(parameter)
            optimizer.step()
        ends.append(parameter.detach().view(6, 18))
    same(ends[0], ends[1])
    torch.manual_seed(0)
    assert not torch.equal(ends[0], torch.randn(6, 18))


@pytest.mark.parametrize("shape", [(6, 18), (18, 6), (8, 8)])
def test_steps_in_bfloat16_are_those_of_torch(shape, monkeypatch):
    monkeypatch.setattr(muon, "product_dtype", lambda device: torch.bfloat16)
    ends = []
    for kind, settings in (
        (torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"}),
        (KernelMuon, {}),
    ):
        torch.manual_seed(0)
        parameter = nn.Parameter(torch.randn(shape))
        optimizer = kind(
            [parameter], lr=0.1, weight_decay=0.3, momentum=0.8, ns_steps=4, **settings
        )
        optimizer.state[parameter][muon.MOMENTUM] = torch.zeros(shape)
        for _ in range(3):
            parameter.grad = torch.randn(shape)
            optimizer.step()
        ends.append(parameter.detach())
    same(ends[1], ends[0])


def test_a_cpu_without_units_for_bfloat16_multiplies_in_float32(monkeypatch):
    monkeypatch.setattr(muon, "cpu_computes_in_bf16", lambda: False)
    assert muon.product_dtype(torch.device("cpu")) is torch.float32
    assert muon.product_dtype(torch.device("cuda")) is torch.bfloat16
    monkeypatch.setattr(muon, "cpu_computes_in_bf16", lambda: True)
    assert muon.product_dtype(torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(20, 9), (9, 20)])
def test_directions_stay_and_singular_values_become_about_one(shape, dtype):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = muon.orthogonalised(matrix, 5, dtype).float()
    values = u.T @ found @ v.T
    assert ((values.diagonal() > 0.6) & (values.diagonal() < 1.3)).all()
    assert (values - values.diagonal().diag()).abs().max() < (
        1e-4 if dtype == torch.float32 else 0.1
    )
