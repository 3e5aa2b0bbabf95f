"""What is commanded, and futures under it."""

import numpy as np
import pytest
import torch

from drives.tokens.store import TokenDrive
from worldmodel.decoding.config import Sampling
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.evaluation.control import commands
from worldmodel.evaluation.control.commands import commanded, commands_of, imagine_variants
from worldmodel.known_entropy.world import KnownEntropyWorld
from worldmodel.windows import TokenClip

NAMES = ("speed_mps", "throttle", "steering", "yaw_rate_rad_s")


def drive():
    rows = np.stack([np.linspace(0, 20, 101), *[np.linspace(-1, 1, 101)] * 3], 1)
    return TokenDrive("d", "train", np.zeros((101, 1, 1), np.uint16), rows.astype(np.float32))


def test_commands_are_the_train_drives_own_and_left_is_left_in_every_column():
    found = commands_of([drive()], NAMES)
    assert [c.level for c in found] == [
        *[("steering", level) for level in (1.0, 0.5, 0.0, -0.5, -1.0)],
        *[("speed", share) for share in (0.1, 0.5, 0.9)],
    ]
    left = found[0].values
    assert left["steering"] == pytest.approx(-0.9, abs=0.02)
    assert left["yaw_rate_rad_s"] == pytest.approx(0.9, abs=0.02)
    assert [c.values["speed_mps"] for c in found[5:]] == pytest.approx([2, 10, 18])
    assert len(commands_of([drive()], NAMES[:2])) == 3  # nothing to steer by


def test_a_command_holds_all_else_as_at_the_end_of_the_prompt():
    actions = torch.rand(2, 6, 4)
    fast = commands_of([drive()], NAMES)[-1]
    changed = commanded(actions, NAMES, 4, fast)
    assert torch.equal(changed[:, :3], actions[:, :3])
    assert changed[:, 3:, 0].flatten().tolist() == pytest.approx([18] * 6)
    assert torch.equal(changed[:, 3:, 1:], actions[:, 2:3, 1:].expand(-1, 3, -1))


def test_every_clip_gets_a_future_under_each_of_its_own_actions(monkeypatch):
    monkeypatch.setattr(commands, "ROWS", 4)  # two batches, of two clips and of one
    world = KnownEntropyWorld()
    torch.manual_seed(0)
    config = GPTConfig(
        24, 1, num_heads=2, context_steps=4, layout=LayoutConfig("continuous"), tie_embeddings=False
    )
    model = build_dynamics(config, world.spec, 1).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    tokens = torch.randint(0, 8, (3, 7, 4, 4))
    actions = torch.randint(-1, 2, (3, 7, 1)).float()
    variants = [actions, -5 * actions - 2]
    greedy = Sampling(greedy=True)
    found = imagine_variants(model, TokenClip(tokens, actions), variants, 2, greedy, {})
    assert found.shape == (2, 3, 5, 4, 4)
    for variant, told in enumerate(variants):
        for clip in range(3):
            one = TokenClip(tokens[clip : clip + 1], told[clip : clip + 1])
            alone = imagine_variants(model, one, [one.actions], 2, greedy, {})
            assert torch.equal(alone[0, 0], found[variant, clip])
    assert not torch.equal(found[0], found[1])
