"""The table of kinds, from two small checkpoints."""

import json
import math

import pytest
import torch

from training.loading.loader import fixed_loader
from worldmodel.evaluation.action_use import VARIANTS
from worldmodel.evaluation.evidence import evidence_of
from worldmodel.evaluation.kinds_table import main
from worldmodel.known_entropy.config import KnownEntropyConfig
from worldmodel.known_entropy.world import KnownEntropyWorld
from worldmodel.load import load_world_model
from worldmodel.windows import TokenWindows, collate

CUT = [
    "model.network.dim=24",
    "model.network.num_layers=2",
    "model.network.num_heads=2",
    "data.batch_size=2",
    "data.num_val_windows=2",
    "trainer.max_steps=2",
    "checkpoints.every_steps=2",
    "callbacks.media=null",
]

NO_ACTIONS = ("actions=none", "action_scale=symlog")


@pytest.fixture
def trained(composed, fit, tmp_path):
    """`trained(experiment, store, *overrides)`: a run folder."""

    def make(experiment, store, *overrides):
        data = ["data=tokens", f"data.root={tmp_path}/{store}", f"run={tmp_path}/{experiment}"]
        return fit(composed(experiment, *data, *CUT, *overrides))[1].folder

    for name, vocab in (("a", 8), ("b", 9)):
        world = KnownEntropyWorld(KnownEntropyConfig(vocab_size=vocab))
        world.write_store(tmp_path / name, num_train=1, num_test=1, steps=12, seed=0)
    return make


def test_kinds_stand_side_by_side(trained, tmp_path, capsys):
    runs = [
        trained("whole_tiny", "a", "model.network.context_steps=3"),
        trained("gpt_tiny", "a", *(f"model.network.layout.{s}" for s in NO_ACTIONS)),
    ]
    capsys.readouterr()
    arguments = ["--num-windows", "4", "--batch-size", "3", "--num-frames", "2"]
    main([*map(str, runs), *arguments, "--out", str(tmp_path / "new/table.json")])
    whole, gpt = json.loads((tmp_path / "new/table.json").read_text())
    assert (whole["kind"], gpt["kind"]) == ("whole_frame", "gpt")
    assert (whole["step"], gpt["step"]) == (2, 2)
    assert set(whole["action_use"]) == set(VARIANTS)
    assert gpt["action_use"] == {}
    for run, row in zip(runs, (whole, gpt), strict=True):
        model = load_world_model(run)
        store = evidence_of(model, {}, None).store
        windows = TokenWindows(store.drives("test"), 3)  # the shorter context
        (clip,) = fixed_loader(windows, 4, 4, collate)
        with torch.no_grad():
            scores = model.network.score(clip.tokens, clip.actions)
        bits = scores.nats[:, 1:].mean().item() / math.log(2)
        assert row["bits_per_token"] == pytest.approx(bits, rel=1e-5)
        assert row["accuracy"] == pytest.approx(scores.correct[:, 1:].float().mean().item())
        assert row["parameters"] == model.network.num_parameters()
        assert row["frames_per_s"] > 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert f"{whole['bits_per_token']:.3f}" in lines[2]
    assert lines[3].count(" - |") == len(VARIANTS)


def test_runs_that_cannot_be_compared_are_refused(trained, tmp_path, capsys):
    ours, other = trained("whole_tiny", "a"), trained("whole_inner_tiny", "b")
    for arguments, message in (
        ([ours, other], "was trained with tokenizer"),
        ([ours, ours], "names a run twice"),
        ([ours, "--num-frames", 0], "--num-frames=0: give a whole number from 1 on"),
        ([tmp_path / "nowhere"], "nowhere"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
