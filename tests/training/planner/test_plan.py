"""The plan says what training then takes: in bytes that torch allocates, and of the process."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from training.errors import BadInput
from training.planner.devices import FULL, GPUS, HALF, Device, find_device
from training.planner.plan import Facts, Planner, plan
from training.planner.report import report
from training.planner.tracker import (
    ACTIVATIONS,
    AVERAGE,
    GRADIENTS,
    OPTIMIZER,
    PARAMETERS,
    TEMPORARIES,
)
from training.run import build_model
from training.settings import datamodule_of

ROOT = Path(__file__).parents[3]
TOLERANCE = 0.15
GAN = "model.loss.gan_start=0"
SMALL = {
    "gpt_tiny": ["model.network.dim=96", "model.network.num_layers=2", "data.batch_size=4"],
    "tokenizer_tiny": [
        "model.network.channels=[16,32]",
        "model.loss.discriminator_channels=16",
        "data.batch_size=4",
        GAN,
    ],
    "masked_tiny": ["model.network.dim=96", "model.network.num_layers=2", "data.batch_size=4"],
    "musik_tiny": ["data.batch_size=4"],
}
SHALLOW = ["model.network.num_layers=2"]


@pytest.fixture
def measuring(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.training.peak_memory")


def planner_for(cfg, memory: float, count: int = 1, peaks: dict | None = None) -> Planner:
    """A planner for a device with so many bytes for tensors, and nothing else taken."""
    device = _Roomy("test", memory, peaks or {FULL: 1e12}, 0.4, "made up")
    return Planner(cfg, device, count)


class _Roomy(Device):
    @property
    def usable(self) -> float:
        return self.memory


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("experiment", "extra"),
    [
        ("gpt_tiny", []),
        pytest.param("tokenizer_tiny", [], marks=SLOW),
        pytest.param("masked_tiny", [], marks=SLOW),
        ("musik_tiny", []),
        pytest.param("tokenizer_tiny", ["checkpoint_activations=true"], marks=SLOW),
        pytest.param("tokenizer_tiny", ["trainer.accumulate_grad_batches=2"], marks=SLOW),
    ],
)
def test_the_planned_peak_is_what_torch_allocates(experiment, extra, composed, measuring):
    cfg = composed(experiment, *SMALL[experiment], "trainer.precision=32-true", *extra)
    planner = planner_for(cfg, 1e12)
    planned = planner.option(planner.asked)
    cfg.trainer.precision = planned.settings.precision
    data = datamodule_of(cfg)
    measured = measuring.tensor_bytes(lambda: measuring.train(cfg, data, cfg.data.batch_size))
    if experiment == "tokenizer_tiny":
        measured += 4 * 2_470_848  # LPIPS' weights lie in the bytes of their file: not allocated
    assert planned.bytes == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "settings"),
    [
        ("gpt_tiny", []),
        ("gpt_tiny", ["trainer.precision=bf16-mixed"]),
        ("gpt_tiny", ["checkpoint_activations=true", "trainer.accumulate_grad_batches=2"]),
        ("tokenizer_tiny", [GAN]),
        ("gpt_small", ["data.batch_size=1"]),
    ],
)
def test_the_planned_peak_is_what_a_process_grows_by(experiment, settings, measuring):
    found = measuring.measure(experiment, *settings)
    assert found["planned"] == pytest.approx(found["measured"], rel=TOLERANCE), found
    assert found["planned"] == pytest.approx(found["tensors"], rel=TOLERANCE), found


def test_every_part_is_counted_as_what_it_is(composed):
    planner = planner_for(composed("tokenizer_tiny", *SMALL["tokenizer_tiny"]), 1e12)
    option = planner.option(planner.asked)
    trained = 4 * sum(option.cost.parameters.values())
    assert option.parts[PARAMETERS] == trained
    assert option.parts[OPTIMIZER] == pytest.approx(2 * trained, rel=0.01)
    assert option.parts[AVERAGE] == pytest.approx(
        4 * option.cost.parameters["autoencoder"], rel=0.01
    )
    # Gradients that are still accumulated are there while the next batch has its activations.
    words = [*SMALL["gpt_tiny"], "trainer.accumulate_grad_batches=3"]
    gpt = planner_for(composed("gpt_tiny", *words), 1e12)
    option = gpt.option(gpt.asked)
    assert option.parts[GRADIENTS] == option.parts[PARAMETERS] > 0
    assert option.parts[AVERAGE] == 0


@pytest.mark.slow
def test_what_joins_late_is_planned_for(composed):
    costs = []
    for start in (10, 10**9):  # of 3,000 steps
        overrides = [*SMALL["tokenizer_tiny"][:-1], f"model.loss.gan_start={start}"]
        planner = planner_for(composed("tokenizer_tiny", *overrides), 1e12)
        costs.append(planner.option(planner.asked))
    with_gan, without = costs
    assert with_gan.parts[OPTIMIZER] > without.parts[OPTIMIZER]
    assert with_gan.cost.flops > 1.2 * without.cost.flops


def test_counted_flops_are_those_of_the_formula(composed):
    # Muon computes too, a quarter more at this size: no formula of a model has that.
    planner = planner_for(composed("gpt_tiny", "optimizer=adamw"), 1e12)
    cost = planner.option(planner.asked).cost
    assert cost.flops == pytest.approx(cost.work.flops, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["gpt_tiny", "tokenizer_tiny"])
def test_checkpointing_costs_compute_and_saves_memory(experiment, composed):
    options = []
    for on in ("false", "true"):
        words = [*SMALL[experiment], f"checkpoint_activations={on}"]
        planner = planner_for(composed(experiment, *words), 1e12)
        options.append(planner.option(planner.asked))
    off, on = options
    active = [o.parts[ACTIVATIONS] + o.parts[TEMPORARIES] for o in options]
    assert active[1] < 0.9 * active[0]
    forward = off.cost.work.flops / 3
    assert 0.2 * forward < on.cost.flops - off.cost.flops < 1.1 * forward
    assert on.seconds > off.seconds


@pytest.mark.slow
def test_a_small_device_gets_the_same_batch_in_pieces(composed):
    cfg = composed("gpt_tiny", *SHALLOW, "data.batch_size=12", "trainer.devices=2")
    roomy = planner_for(cfg, 1e12, count=2)
    asked = roomy.option(roomy.asked)
    assert roomy.best(asked) is asked
    assert roomy.overrides(asked.settings) == []
    tight = planner_for(cfg, 0.6 * asked.bytes, count=2)
    configured = tight.option(tight.asked)
    proposed = tight.best(configured)
    assert not configured.fits
    assert proposed is not None
    assert proposed.fits
    assert proposed.settings.checkpointing is False
    micro = proposed.settings.micro_batch
    assert micro == 6
    assert micro * proposed.settings.accumulate == 12
    words = tight.overrides(proposed.settings)
    again = composed("gpt_tiny", *SHALLOW, "data.batch_size=12", *words)
    followed = planner_for(again, 0.6 * asked.bytes)
    assert followed.asked == proposed.settings
    assert followed.option(followed.asked).bytes == proposed.bytes


@pytest.mark.slow
def test_checkpointing_is_proposed_only_where_nothing_else_fits(composed):
    cfg = composed("gpt_tiny", *SHALLOW, "data.batch_size=1")
    asked = planner_for(cfg, 1e12)
    planner = planner_for(cfg, 0.95 * asked.option(asked.asked).bytes)
    proposed = planner.best(planner.option(planner.asked))
    assert proposed is not None
    assert proposed.settings.checkpointing is True
    assert planner.overrides(proposed.settings) == ["checkpoint_activations=true"]
    hopeless = planner_for(cfg, 1e6)
    assert hopeless.best(hopeless.option(hopeless.asked)) is None


@pytest.mark.slow
def test_half_precision_is_proposed_where_the_device_computes_in_it(composed):
    cfg = composed("gpt_tiny", *SMALL["gpt_tiny"], "trainer.precision=32-true")
    fast = {FULL: 1e9, HALF: 2e9}  # slow enough for compute to matter more than launches
    planner = planner_for(cfg, 1e12, peaks=fast)
    configured = planner.option(planner.asked)
    proposed = planner.best(configured)
    assert proposed is not None
    assert proposed.settings.precision == HALF
    assert proposed.bytes < configured.bytes
    assert proposed.seconds == pytest.approx(configured.seconds / 2)
    assert planner.overrides(proposed.settings) == ["trainer.precision=bf16-mixed"]


@pytest.mark.slow
def test_sharding_divides_what_belongs_to_parameters(composed):
    words = [*SMALL["gpt_tiny"], "trainer.strategy=fsdp"]
    whole = planner_for(composed("gpt_tiny", *words), 1e12)
    split = planner_for(composed("gpt_tiny", *words), 1e12, count=4)
    one, four = (planner.option(planner.asked).parts for planner in (whole, split))
    for part in (PARAMETERS, GRADIENTS, OPTIMIZER):
        assert four[part] == pytest.approx(one[part] / 4, abs=1)
    assert four[TEMPORARIES] > one[TEMPORARIES]


@pytest.mark.parametrize("experiment", ["gpt_tiny", "tokenizer_tiny"])
def test_the_planned_facts_and_batch_are_those_of_the_data(experiment, composed):
    cfg = composed(experiment, "data.batch_size=2")
    data = datamodule_of(cfg)
    planned = data.planned_facts()
    batch = data.planned_batch(planned, 2)
    data.prepare_data()
    facts = data.model_facts() if hasattr(data, "model_facts") else {}
    of_rows = {"action_ranges", "action_moments"}  # made up: the rows are not there yet
    assert {k: v for k, v in planned.items() if k not in of_rows} == {
        k: v for k, v in facts.items() if k not in of_rows
    }
    for name in of_rows & facts.keys():
        assert [len(row) for row in planned[name]] == [len(row) for row in facts[name]]
    module = build_model(cfg, Facts(planned))
    real = importlib.import_module(f"{type(data).__module__}").collate(
        [data.dataset("train")[i] for i in range(2)]
    )
    names = ["tokens", "actions"] if experiment == "gpt_tiny" else ["frames"]
    for name in names:
        assert getattr(batch, name).shape == getattr(real, name).shape
        assert getattr(batch, name).dtype == getattr(real, name).dtype
    assert module.work(batch) == module.work(real)


def test_the_command_prints_the_plan_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    words = ["+experiment=gpt_base", "plan=true", "plan_device=h200", "trainer.devices=2"]
    # Fewer layers: it takes seconds, and says the same things.
    monkeypatch.setattr(sys, "argv", ["train.py", *words, "model.network.num_layers=2"])
    importlib.import_module("train").main()
    shown = capsys.readouterr().out
    for word in ("2 x h200", "FLOPs per token", "causal", "optimizer state", "tokens/s at 40%"):
        assert word in shown
    assert "64 examples = 65,536 tokens" in shown
    assert re.search(r"network\.blocks +14\.16 M", shown)
    assert max(map(len, shown.splitlines())) <= 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_share_of_the_peak_sets_the_hours(composed):
    words = [*SMALL["gpt_tiny"], "plan_device=3090", "data.batch_size=512"]
    slow, fast = (plan(composed("gpt_tiny", *words, f"plan_mfu={m}")) for m in (0.1, 0.2))
    assert slow.configured.seconds == pytest.approx(2 * fast.configured.seconds)
    assert "tokens/s at 10% of the peak" in report(slow)


def test_devices_are_looked_up_or_asked(composed):
    for name, (memory, half, full) in GPUS.items():
        device, count = find_device(composed("gpt_tiny", f"plan_device={name}"))
        assert (device.memory, device.peak("bf16-mixed"), device.peak("32-true"), count) == (
            memory,
            half,
            full,
            1,
        )
        assert 0.8 * memory < device.usable < memory
    cpu, count = find_device(composed("gpt_tiny"))
    halved, two = find_device(composed("gpt_tiny", "trainer.devices=2"))
    assert (cpu.name, count, two) == ("cpu", 1, 2)
    assert halved.memory == cpu.memory / 2
    assert halved.peak("32-true") == cpu.peak("32-true") / 2


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["plan_device=h300"], ["h300", "h200", "cpu"]),
        (["plan_mfu=2"], ["plan_mfu=2", "0.4"]),
        (["plan_mfu=fast"], ["plan_mfu=fast", "0.4"]),
        (["data.batch_size=0"], ["data.batch_size=0", "1"]),
        (["trainer.max_steps=-1"], ["trainer.max_steps=-1", "1"]),
        (["trainer.strategy=zero"], ["zero", "ddp", "fsdp"]),
        (["name=null"], ["+experiment"]),
        (["data=tokens", "data.root=nowhere"], ["nowhere", "no such folder or file"]),
        (["data=commavq", "data.root=nowhere"], ["nowhere", "no such folder or file"]),
        (["data.source.actions=[brakes]"], ["brakes", "steering"]),
        (["data.tokenizer=nowhere"], ["nowhere", "carracing"]),
    ],
)
def test_bad_settings_are_refused(words, shown, composed):
    with pytest.raises(BadInput) as refused:
        plan(composed("gpt_tiny", *words))
    for word in shown:
        assert word in str(refused.value)
