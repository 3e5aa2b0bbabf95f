"""A whole-frame checkpoint from before `place`, `when` and `told` were renamed opens."""

from pathlib import Path

import pytest
import torch

from training.checkpoints.folder import read_weights
from training.config import AdamWConfig
from worldmodel.load import load_world_model
from worldmodel.module import WorldModelModule

OLD = Path(__file__).parent / "old_checkpoints/whole_frame"


def test_an_old_whole_frame_model_scores_as_it_did() -> None:
    model = load_world_model(OLD)
    tokens = torch.arange(24).view(1, 4, 2, 3) % 11
    actions = torch.linspace(-1, 1, 8).view(1, 4, 2)
    scores = model.network.score(tokens, actions)
    assert scores.nats.mean().item() == pytest.approx(2.549302816390991, abs=1e-6)


def test_a_run_resumes_from_its_old_parameter_names() -> None:
    model, stored = load_world_model(OLD), read_weights(OLD)
    module = WorldModelModule(
        model.network.config, AdamWConfig(), model.spec, model.action_names, action_dropout=0.0
    )
    checkpoint = {"state_dict": stored}
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(module.network.spatial_pos_emb.weight, stored["network.place.weight"])
    assert torch.equal(module.network.temporal_pos_emb.weight, stored["network.when.weight"])
    assert torch.equal(module.network.token_gate.up.weight, stored["network.told.up.weight"])
