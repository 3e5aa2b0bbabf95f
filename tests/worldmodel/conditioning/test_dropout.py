"""Shares of examples that are trained on a part of what conditions them."""

import pytest
import torch

from training.errors import BadInput
from worldmodel.conditioning.dropout import ConditionShares


def test_gaia_1_shares_are_what_is_drawn():
    torch.manual_seed(0)
    no_actions, no_text = ConditionShares(0.2, 0.4, 0.4).draw(20_000, torch.device("cpu"))
    shares = [
        (a.logical_and(b).float().mean().item())
        for a, b in ((no_actions, no_text), (~no_actions, no_text), (no_actions, ~no_text))
    ]
    assert shares == pytest.approx([0.2, 0.4, 0.4], abs=0.015)
    assert not (~no_actions & ~no_text).any()


def test_action_dropout_alone_drops_actions_as_it_always_did():
    torch.manual_seed(3)
    no_actions, no_text = ConditionShares().with_action_dropout(0.3).draw(64, torch.device("cpu"))
    torch.manual_seed(3)
    assert torch.equal(no_actions, torch.rand(64) < 0.3)
    assert not no_text.any()


def test_shares_that_are_none_are_refused():
    with pytest.raises(BadInput, match="sum to 1 at most"):
        ConditionShares(0.5, 0.6)
    with pytest.raises(BadInput, match=r"none=-0.1"):
        ConditionShares(-0.1)
    with pytest.raises(BadInput, match=r"action_dropout=0.1 with conditions none=0.2"):
        ConditionShares(0.2, 0.4, 0.4).with_action_dropout(0.1)
