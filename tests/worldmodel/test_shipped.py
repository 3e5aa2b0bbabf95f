"""The world model that ships with the package: found by its name, whole, as good as it says."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import ACTION_NAMES, make_drive
from drives.clips.motion import scene_motion
from drives.folder import open_drives
from drives.importers.__main__ import main as import_drives
from drives.writing import write_drive
from tokenizer.config import EncodeConfig
from tokenizer.encode import encode_drives
from tokenizer.load import load_tokenizer
from training.checkpoints.folder import open_checkpoint
from training.checkpoints.manifests import MANIFEST
from training.checkpoints.shipped import named
from training.errors import BadInput
from training.help import CONFIGS
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.evaluation.action_use import VARIANTS, bits_by_window
from worldmodel.evaluation.evidence import data_source
from worldmodel.evaluation.judge import judge
from worldmodel.evaluation.provenance.chain import provenance
from worldmodel.load import PRETRAINED, export_world_model, load_world_model
from worldmodel.windows import TokenWindows, collate

NAME = "carracing"
ROAD = "udacity"  # roads of Udacity's simulator
# Tracks that neither the training nor the figures in the manifest have seen.
FRESH = CarRacingConfig(seed=77, num_train=2, num_val=0, num_test=0, seconds=10.0)


@pytest.fixture(scope="module")
def model():
    return load_world_model(NAME)


def test_it_opens_by_its_name_in_full_precision_and_is_small(model):
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    assert sum(file.stat().st_size for file in (PRETRAINED / NAME).iterdir()) < 5e6
    stored = open_checkpoint(PRETRAINED / NAME).weights
    assert {value.dtype for value in stored.values()} == {torch.float16}


def test_its_manifest_says_what_it_is_and_names_no_place_of_its_training(model):
    figures, trained = model.manifest["figures"], model.manifest["trained"]
    assert {"bits_per_token", "accuracy", "shuffled_actions_cost", "rollout"} <= figures.keys()
    assert {"command", "hardware"} <= trained.keys()
    assert model.manifest["step"] == model.manifest["config"]["trainer"]["max_steps"]
    text = (PRETRAINED / NAME / MANIFEST).read_text()
    assert "/tmp" not in text
    assert "/work" not in text


def test_it_reads_the_tokens_of_the_shipped_tokenizer(model):
    tokenizer = load_tokenizer(NAME)
    assert model.reads_tokens_of(tokenizer.known_as[0], tokenizer)
    assert model.action_names == ACTION_NAMES


def test_its_data_is_made_where_the_command_line_says(model, tmp_path):
    source = data_source(model.manifest, {"root": None, "cache": str(tmp_path)}, model.path)
    assert source.folder == tmp_path / "carracing"


def test_its_evaluation_is_written_among_the_runs(tmp_path, monkeypatch):
    """Never into the package; what is refused before the work shows where it would go."""
    taken = tmp_path / "runs" / NAME / "eval"
    taken.mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["eval.py"])
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("eval", overrides=[f"ckpt={NAME}", f"paths.runs={tmp_path / 'runs'}"])
    with pytest.raises(BadInput, match=f"out={taken}: exists and is no evaluation of ours"):
        judge(cfg)


def test_its_provenance_is_told_by_its_name():
    assert provenance(Path(NAME))["checkpoint"] == str(PRETRAINED / NAME)


def test_a_name_wins_over_a_folder_and_a_path_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    assert named(NAME, PRETRAINED, "ckpt") == PRETRAINED / NAME
    assert named(f"./{NAME}", PRETRAINED, "ckpt") == Path(NAME)
    with pytest.raises(BadInput, match=rf"ckpt=carracin: no such run .*; shipped: {NAME}"):
        named("carracin", PRETRAINED, "ckpt")


def test_an_export_scores_as_its_run_and_cannot_be_resumed(composed, fit, tmp_path):
    short = composed("gpt_tiny", "+debug=fast", "trainer.max_steps=2", "callbacks.media=null")
    _, run, _ = fit(short)
    export_world_model(run.folder, tmp_path / "export", trained={"command": "mine"})
    ours, theirs = load_world_model(run.folder), load_world_model(tmp_path / "export")
    tokens = torch.randint(ours.spec.vocab_size, (1, 2, *ours.spec.grid[1:]))
    actions = torch.zeros(1, 2, len(ours.action_names))
    losses = [m.network.loss(tokens, actions).item() for m in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-2)
    manifest = json.loads((tmp_path / "export" / MANIFEST).read_text())
    assert list(manifest["files"]) == ["weights.safetensors"]
    assert manifest["trained"] == {"command": "mine"}
    assert str(run.folder) not in json.dumps(manifest["config"])


@pytest.mark.slow
def test_it_holds_to_its_figures_on_fresh_drives(model, tmp_path):
    promised = model.manifest["figures"]
    for index in range(2):
        frames, actions, meta = make_drive(FRESH, index)
        write_drive(
            tmp_path / f"{index}", frames, actions, ACTION_NAMES, {**meta, "split": "train"}
        )
    store = encode_drives(open_drives(tmp_path), NAME, tmp_path / "store", ACTION_NAMES)
    windows = TokenWindows(store.drives("train"), model.network.config.context_steps)
    clips = [collate([windows[i] for i in range(0, len(windows), len(windows) // 24)])]
    actions = clips[0].actions
    variants = {"true": actions, "shuffled": VARIANTS["shuffled"](actions)}
    bits = bits_by_window(model.network, clips, "cpu", variants=variants)
    true, shuffled = (float(bits[name].mean()) for name in ("true", "shuffled"))
    assert true < promised["bits_per_token"] + 0.35
    assert shuffled - true > 0.7 * promised["shuffled_actions_cost"]

    prompt, horizon = 2, 20
    long = TokenWindows(store.drives("train"), prompt + horizon)
    clip = collate([long[i] for i in np.linspace(0, len(long) - 1, 4).astype(int)])
    future = rollout(model.network, clip.tokens[:, :prompt], clip.actions, horizon, Sampling())[
        :, 0
    ]
    real, last = clip.tokens[:, prompt:], clip.tokens[:, prompt - 1 : prompt]
    decode = load_tokenizer(NAME).decode

    def error(tokens):
        """Mean squared error in the frames of the camera's tokens."""
        return float((decode(tokens.flatten(0, 1)) - decode(real.flatten(0, 1))).square().mean())

    gained = 10 * math.log10(error(last.expand_as(real)) / error(future))
    promise = promised["rollout"]["psnr"] - promised["rollout"]["frozen_frame_psnr"]
    assert gained > promise / 3


@pytest.mark.long
def test_the_road_model_holds_to_its_figures_on_the_lake(shared, tmp_path):
    """Bits, what shuffled actions cost, and which way the dream turns, on test frames."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/lake").symlink_to(shared / "data/udacity/lake")
    import_drives(
        ["videos", str(tmp_path / "src"), str(tmp_path / "drives"), "--size", "64", "128"]
    )
    road = load_world_model(ROAD)
    promised, tokenizer = road.manifest["figures"], load_tokenizer(ROAD)
    assert road.reads_tokens_of(tokenizer.known_as[0], tokenizer)
    drives = [drive for drive in open_drives(tmp_path / "drives") if drive.split == "test"]
    every = EncodeConfig(every=2, num_workers=0)
    store = encode_drives(drives, tokenizer, tmp_path / "store", road.action_names, every)
    windows = TokenWindows(store.all, road.network.config.context_steps)
    clips = [collate([windows[i] for i in range(0, len(windows), 2)])]
    actions = clips[0].actions
    variants = {"true": actions, "shuffled": VARIANTS["shuffled"](actions)}
    bits = bits_by_window(road.network, clips, "cpu", variants=variants)
    true, shuffled = (float(bits[name].mean()) for name in ("true", "shuffled"))
    assert true < promised["lake_bits_per_token"] + 0.15
    assert shuffled - true > 0.7 * promised["lake_shuffled_actions_cost"]

    long = TokenWindows(store.all, 2 + 10)
    clip = collate([long[i] for i in np.linspace(0, len(long) - 1, 6).astype(int)])
    steering, turned = road.action_names.index("steering"), {}
    for way, value in {"left": -0.4, "right": 0.4}.items():
        asked = clip.actions.clone()
        asked[:, 1:, steering] = value
        future = rollout(road.network, clip.tokens[:, :2], asked, 10, Sampling(top_k=10))[:, 0]
        pixels = tokenizer.decode(future.flatten(0, 1)).unflatten(0, future.shape[:2])
        shown = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        turned[way] = float(scene_motion(shown).median(1).values.mean())
    assert turned["left"] > 1 > -1 > turned["right"]
