"""A tokenizer and a world model that are trained together, and what their checkpoints open as."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from killed_runs import assert_same

from drives.clips.data_module import Clip, collate
from tokenizer.load import export_tokenizer, load_tokenizer
from training.checkpoints.folder import (
    newest_first,
    open_checkpoint,
    read_manifest,
    read_state,
    read_weights,
)
from training.checkpoints.parts import part_of
from training.errors import BadInput
from training.help import composed as composed_config
from training.watch.rows import METRICS_FILE, read_rows
from worldmodel.dynamics.gpt.model import GPT
from worldmodel.evaluation.evidence import evidence_of
from worldmodel.evaluation.judge import judge
from worldmodel.load import export_world_model, load_world_model

SMALL = [
    "model.tokenizer.channels=[16]",
    "model.tokenizer.patch=8",
    "model.tokenizer.quantizer.vocab_size=64",
    "model.loss.perceptual_weight=0",
    "model.loss.perceptual_net=''",
    "model.loss.gan_weight=0",
    "model.network.dim=48",
    "model.network.num_layers=1",
    "model.network.num_heads=2",
    "model.network.context_steps=5",
    "model.network.horizon=2",
    "model.network.stack=2",
    "data.batch_size=4",
    "data.num_val_clips=4",
    "data.duplicates=off",
    "max_passes=null",
    "trainer.precision=32-true",
    "callbacks.media=null",
    "callbacks.doctor=null",
]


@pytest.fixture
def joined(composed, fit):
    """`joined(*overrides)`: module, run and a batch of clips after two steps."""

    def train(*overrides: str) -> tuple[Any, Any, Clip]:
        cfg = composed("joint_tiny", *SMALL, "trainer.max_steps=2", *overrides)
        module, run, trainer = fit(cfg)
        clips = trainer.datamodule.dataset("train")
        return module, run, collate([clips[0], clips[9]])

    return train


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return {}


@pytest.fixture
def pair(joined, kept: dict[str, Any]) -> tuple[Any, Any, Clip]:
    """What `joined()` gives, trained once for several tests."""
    if not kept:
        kept["pair"] = joined()
    return kept["pair"]


def test_its_checkpoints_open_as_both(pair, tmp_path: Path) -> None:
    """And as a pair: the world model knows the tokenizer of its checkpoint by its hash."""
    module, run, batch = pair
    tokenizer, model = load_tokenizer(run.folder), load_world_model(run.folder)
    assert model.spec == tokenizer.spec(module.network.spec.fps)
    tokens = tokenizer.encode(batch.pixels()).reshape(2, 5, 8, 8)
    module.eval()
    assert torch.equal(tokens, module.tokens(batch))
    ours, theirs = (n.score(tokens, batch.actions) for n in (module.network, model.network))
    assert torch.equal(ours.nats, theirs.nats)
    source = plain_source(run.config)
    evidence = evidence_of(model, source, None)
    assert evidence.tokenizer is not None
    assert evidence.store.spec.tokenizer == tokenizer.hash
    export_world_model(run.folder, tmp_path / "model")
    export_tokenizer(run.folder, tmp_path / "tokenizer")
    assert load_world_model(tmp_path / "model").spec.tokenizer == tokenizer.hash
    assert load_tokenizer(tmp_path / "tokenizer").network.config == module.config
    with pytest.raises(BadInput, match="has parts tokenizer, worldmodel; a video_decoder is"):
        open_checkpoint(run.folder, "video_decoder")


def plain_source(config: dict[str, Any]) -> dict[str, Any]:
    return {"cache": config["data"]["source"]["cache"]}


def test_each_card_judges_its_part(pair, data_folder: Path) -> None:
    """And beside the other: no report replaces that of the other part."""
    _, run, _ = pair
    words = [f"ckpt={run.folder}", f"paths.data={data_folder}", "device=cpu"]
    asked = {
        "occupancy": ["cards.occupancy.version=small", "cards.occupancy.num_windows=2"],
        "reconstruction": ["cards.reconstruction.version=s", "cards.reconstruction.max_frames=4"],
    }
    for card, settings in asked.items():
        judge(composed_config("eval", [*words, f"card={card}", *settings]))
    for name, card, kind in (
        ("eval", "occupancy", "worldmodel"),
        ("eval_tokenizer", "reconstruction", "tokenizer"),
    ):
        found = json.loads((run.folder / name / "metrics.json").read_text())
        assert set(found["cards"]) == {card}
        assert found["kind"] == kind


def test_gradients_stay_where_they_belong(pair) -> None:
    """Tokens are integers: the world model teaches the tokenizer nothing, nor the other way."""
    module, _, batch = pair
    module.zero_grad()
    module.train()
    module.network.loss(module.tokens(batch), batch.actions).backward()
    assert all(p.grad is None for p in module.autoencoder.parameters())
    assert all(p.grad is None for p in module.ema.parameters())
    assert all(p.grad is None for p in module.network.target.parameters())
    assert all(p.grad is not None for p in module.network.online.blocks.parameters())


def test_another_kind_of_world_model(composed, fit) -> None:
    """It has no use for what the recipe sets of an occupancy model."""
    words = [f"~model.network.{name}" for name in ("gamma", "horizon", "stack")]
    words += ["network@model.network=gpt", "trainer.max_steps=1"]
    _, run, trainer = fit(composed("joint_tiny", *SMALL, *words))
    assert trainer.global_step == 1
    assert type(load_world_model(run.folder).network) is GPT


@pytest.mark.slow
def test_what_each_setting_changes(joined) -> None:
    """The rate of the tokenizer alone, the frames it sees, and whose tokens are read."""
    module, _, batch = joined("run=${paths.runs}/a")
    still, _, _ = joined("run=${paths.runs}/b", "model.tokenizer_optimizer.lr=1e-9")
    moved, kept = (m.autoencoder.encoder.state_dict() for m in (module, still))
    assert any((moved[name] - kept[name]).abs().max() > 1e-4 for name in moved)
    assert module.pictures(batch).frames.shape[:2] == (2, 2)
    assert still.ema_decay == 0.999
    own, _, _ = joined("run=${paths.runs}/c", "model.ema_decay=0.0", "model.tokenizer_frames=5")
    assert own.pictures(batch).frames.shape[:2] == (2, 5)
    for average, weight in zip(
        own.ema.module.parameters(), own.autoencoder.parameters(), strict=True
    ):
        assert torch.equal(average, weight)


@pytest.mark.slow
def test_dropped_actions_teach_nothing(joined) -> None:
    """With all of them dropped, what embeds them stays as it began; else it moves."""
    weights = {}
    for share in (0.0, 1.0):
        for steps in (1, 2):
            words = [f"model.action_dropout={share}", "optimizer.weight_decay=0.0"]
            words += [f"trainer.max_steps={steps}", f"run=${{paths.runs}}/{share}-{steps}"]
            named = joined(*words)[0].network.online.named_parameters()
            weights[share, steps] = {n: p for n, p in named if "action" in n and p.ndim == 2}
    assert weights[0.0, 1]
    for name in weights[0.0, 1]:
        assert not torch.equal(weights[0.0, 1][name], weights[0.0, 2][name])
        assert torch.equal(weights[1.0, 1][name], weights[1.0, 2][name])


@pytest.mark.slow
def test_it_learns_and_its_target_follows(composed, fit) -> None:
    cfg = composed("joint_tiny", *SMALL, "trainer.max_steps=40", "trainer.log_every_n_steps=5")
    module, run, _ = fit(cfg)
    rows = [row for row in read_rows(run.folder / METRICS_FILE) if "train/loss" in row]
    for name in ("train/loss", "train/world_loss"):
        assert rows[-1][name] < 0.8 * rows[0][name]
    pairs = zip(module.network.online.parameters(), module.network.target.parameters(), strict=True)
    assert any(not torch.equal(online, target) for online, target in pairs)


class Stop(L.Callback):
    """Dies in the third step, between its two batches."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 5:
            raise InterruptedError


@pytest.mark.slow
def test_two_steps_and_two_more_are_four_bit_for_bit(composed, fit) -> None:
    """With the discriminator, two batches per step, and draws of every kind."""
    words = [*SMALL, "model.loss.gan_weight=0.1", "model.loss.gan_start=0", "trainer.max_steps=4"]
    words += ["model.loss.discriminator_channels=8", "trainer.accumulate_grad_batches=2"]
    words += ["checkpoints.every_steps=2", "trainer.val_check_interval=4", "data.batch_size=2"]
    words += ["model.network.dropout=0.1", "model.action_dropout=0.5"]
    _, alone, _ = fit(composed("joint_tiny", *words, "run=${paths.runs}/alone"))
    cfg = composed("joint_tiny", *words, "run=${paths.runs}/parts")
    with pytest.raises(InterruptedError):  # a shorter run would have another schedule
        fit(cfg, Stop())
    assert read_manifest(newest_first(Path(cfg.run))[0])["step"] == 2
    module, run, trainer = fit(cfg)
    assert run.resume_from is not None
    assert trainer.global_step == 4
    one, two = (newest_first(folder)[0] for folder in (alone.folder, run.folder))
    assert one.name == two.name == "step-0000004"
    assert_same(read_weights(one), read_weights(two))
    states = [read_state(path) for path in (one, two)]
    assert len(states[0]["optimizer_states"]) == 3
    assert all(state["state"] for state in states[0]["optimizer_states"])
    for name in ("optimizer_states", "lr_schedulers", "loops"):
        assert_same(states[0][name], states[1][name])
    assert list(cfg.data.source.actions) == module.manifest["action_names"]
    assert run.config["data"]["source"]["actions"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*SMALL, "network@model.tokenizer=musik"], "model.tokenizer: is a MusikConfig"),
        ([*SMALL, "model.tokenizer_frames=0"], "model.tokenizer_frames=0"),
        ([*SMALL, "model.ema_decay=1.0"], "model.ema_decay=1.0"),
    ],
)
def test_settings_that_make_no_pair(words: list[str], said: str, composed, fit) -> None:
    with pytest.raises(BadInput, match=said):
        fit(composed("joint_tiny", *words))


def test_parts_of_a_damaged_manifest() -> None:
    for parts in ([], {"tokenizer": 3}):
        with pytest.raises(BadInput, match=r"parts=.*should be an object per kind"):
            part_of({"kind": "joint", "parts": parts}, "tokenizer", Path("x"))
