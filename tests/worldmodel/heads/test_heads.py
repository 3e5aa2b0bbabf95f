"""Heads on tokens: what they read, what they are told, files, and what a dream makes of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tiny_world import NAMES, SPEC, driven, write_world

import worldmodel.env
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.errors import BadInput
from training.help import composed
from worldmodel.heads.__main__ import heads as train_by_command
from worldmodel.heads.config import HEADS, HeadsSettings
from worldmodel.heads.heads import MANIFEST, FrameHeads, load_heads
from worldmodel.heads.training import _examples, scores_of, train_heads, usable

COLUMNS = (*NAMES, *HEADS, "discount")


def settings(**given: Any) -> HeadsSettings:
    return HeadsSettings(ckpt="", out="", **{"steps": 80, "num_frames": 2, **given})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TokenStore:
    """The first token tells the road; a reward is the first column, on the road alone."""
    folder, rng = tmp_path_factory.mktemp("store") / "tokens", np.random.default_rng(0)
    writer = TokenStoreWriter(folder, SPEC, COLUMNS)
    for number in range(8):
        tokens = rng.integers(0, SPEC.vocab_size, (120, 2, 3)).astype(np.uint16)
        rows = driven(rng, 120)
        off = np.roll(tokens[:, 0, 0] > 7, -1)  # row t is of frame t + 1
        reward = rows[:, 0] * ~off
        lost = off & np.roll(off, 1)
        table = np.column_stack([rows, reward, off, lost, 0 * off]).astype(np.float32)
        writer.write(f"drive-{number}", "test" if number > 5 else "train", tokens, table)
    return TokenStore(folder)


@pytest.fixture(scope="module")
def heads(store: TokenStore) -> FrameHeads:
    return train_heads(store, settings(smooth_s=0.0), "cpu")


def test_heads_read_what_tokens_and_rows_tell(store: TokenStore, heads: FrameHeads) -> None:
    scores = scores_of(heads, store, "test", "cpu")
    assert scores["off_road"]["auc"].value > 0.98
    assert scores["done"]["auc"].value > 0.9  # two frames show it
    assert scores["reward"]["r2"].value > 0.6
    assert scores["reward"]["r2"].low < scores["reward"]["r2"].value
    assert "auc" not in scores["reward"]
    deaf = train_heads(store, settings(smooth_s=0.0, with_actions=[]), "cpu")
    assert scores_of(deaf, store, "test", "cpu")["reward"]["r2"].value < 0.1
    short = train_heads(store, settings(columns=["done"], with_actions=[], num_frames=1), "cpu")
    auc = scores_of(short, store, "test", "cpu")["done"]["auc"].value
    assert auc < scores["done"]["auc"].value


def test_a_reward_is_learned_as_its_mean_over_a_time(store: TokenStore) -> None:
    grids, rows = [torch.zeros(200, 2, 3, dtype=torch.long)], torch.rand(200, 3) * 2 - 1
    told = [
        train_heads(store, settings(columns=["reward"], smooth_s=s), "cpu")(grids, rows)["reward"]
        for s in (0.0, 2.0)
    ]
    assert told[1].std() < 0.5 * told[0].std()


def test_files_hold_what_was_trained(heads: FrameHeads, tmp_path: Path) -> None:
    heads.save(tmp_path)
    opened = load_heads(tmp_path, SPEC, NAMES)
    grids = list(torch.randint(0, SPEC.vocab_size, (3, 5, 2, 3)))
    rows = torch.rand(5, 3)
    told, again = heads(grids, rows), opened(grids, rows)
    assert list(told) == list(HEADS)
    assert all(torch.equal(told[name], again[name]) for name in told)
    assert not torch.equal(heads(grids, rows + 1)["reward"], told["reward"])
    assert torch.equal(heads(grids, rows + 1)["off_road"], told["off_road"])
    # A dream that has just begun has fewer frames than a head reads.
    assert torch.equal(heads(grids[:1], rows)["done"], heads(grids[:1] * 2, rows)["done"])
    with pytest.raises(BadInput, match="has those of"):
        load_heads(tmp_path, replace(SPEC, tokenizer="other"), NAMES)
    with pytest.raises(BadInput, match="with_actions="):
        load_heads(tmp_path, SPEC, ("pose",))
    with pytest.raises(BadInput, match="holds no heads"):
        load_heads(tmp_path / "none", SPEC, NAMES)
    (tmp_path / "heads.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(BadInput, match="use another copy"):
        load_heads(tmp_path, SPEC, NAMES)
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(BadInput, match=MANIFEST):
        load_heads(tmp_path, SPEC, NAMES)


def test_heads_with_convolutions_open_again(store: TokenStore, tmp_path: Path) -> None:
    given = {"columns": ["off_road"], "with_actions": [], "steps": 2}
    seeing = train_heads(store, settings(convolutions=[4, 4], **given), "cpu")
    assert len(seeing.heads["off_road"].convolutions) == 4
    assert len(train_heads(store, settings(**given), "cpu").heads["off_road"].convolutions) == 0
    seeing.save(tmp_path)
    grids = list(torch.randint(0, SPEC.vocab_size, (3, 5, 2, 3)))
    again = load_heads(tmp_path, SPEC)(grids)
    assert torch.equal(seeing(grids)["off_road"], again["off_road"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"columns": ["fame"], "with_actions": []}, "has no column 'fame'"),
        ({"columns": [], "with_actions": []}, "name at least one"),
        ({"columns": ["done"]}, "with_actions='reward': choose one of done"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"num_frames": 200}, "no whole train drive"),
        ({"columns": ["discount"], "with_actions": []}, "discount never changes"),
        ({"smooth_s": -1.0}, "smooth_s=-1.0"),
        ({"convolutions": [0]}, "convolutions"),
    ],
)
def test_what_cannot_be_trained_is_refused(store: TokenStore, wrong: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        train_heads(store, settings(**wrong), "cpu")


def test_no_drives_to_judge_by_and_heads_that_exist_are_refused(
    store: TokenStore, heads: FrameHeads, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"no whole test drive of .* has over 120 time steps"):
        usable(store, "test", 120)
    heads.save(tmp_path)
    with pytest.raises(BadInput, match="exists already; nothing is overwritten"):
        train_by_command(composed("commands/heads", ["ckpt=carracing", f"out={tmp_path}"]))


def test_long_drives_are_read_row_by_row(tmp_path: Path) -> None:
    """More steps than a head of values reads; each stack keeps the row that led to it."""
    writer = TokenStoreWriter(tmp_path, SPEC, ("step",))
    steps = np.arange(17_000)
    tokens = np.broadcast_to((steps % 7)[:, None, None], (17_000, 2, 3)).astype(np.uint16)
    writer.write("long", "train", tokens, steps[:, None].astype(np.float32))
    stacks, values, rows = _examples(TokenStore(tmp_path).drives("train")[0], 0, (2, 3), 2)
    assert torch.equal(rows[:, 0], values)
    assert torch.equal(stacks[:, -1, 0, 0], (values.long() + 1) % 7)


def test_a_dream_is_rewarded_and_ended_by_heads(heads: FrameHeads, tmp_path: Path) -> None:
    ckpt, root = write_world(tmp_path, "gpt")
    heads.save(tmp_path)
    given = {"ckpt": ckpt, "data_root": root, "observation": "tokens", "heads": str(tmp_path)}

    def steps(**more: Any) -> list[tuple]:
        env = gymnasium.make(worldmodel.env.ENVIRONMENT, **given | more)
        env.reset(seed=0)
        return [env.step(np.array([0.1, 0.5], np.float32)) for _ in range(6)]

    told = steps(reward="head", done="head")
    plain = steps()
    for (_, reward, ended, _, info), (_, none, never, *_) in zip(told, plain, strict=True):
        assert reward == info["reward"]
        assert ended == (info["done"] > 0.5)
        assert none == 0.0
        assert not never
    assert len({reward for _, reward, *_ in told}) > 1
    many = gymnasium.make_vec(
        worldmodel.env.ENVIRONMENT, 4, "vector_entry_point", reward="head", done="head", **given
    )
    many.reset(seed=0)
    _, rewards, ended, _, info = many.step(np.zeros((4, 2), np.float32))
    assert np.array_equal(rewards, info["reward"])
    assert np.array_equal(ended, info["done"] > 0.5)
    for wrong in ({"reward": "head"}, {"done": "head"}):
        with pytest.raises(BadInput, match="has no head"):
            gymnasium.make(worldmodel.env.ENVIRONMENT, **given | {"heads": None} | wrong)
