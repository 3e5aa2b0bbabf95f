"""The sequence layout: ids, positions and targets, checked against hand-made examples."""

import pytest
import torch

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.layout import SequenceLayout, symlog

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")


def make_layout(kind: str, **settings: float) -> SequenceLayout:
    return SequenceLayout(LayoutConfig(actions=kind, **settings), SPEC, num_actions=2)


def test_none_puts_one_separator_before_every_frame() -> None:
    layout = make_layout("none")
    tokens = torch.arange(12).view(1, 2, 2, 3) % 11
    expected = [11, 0, 1, 2, 3, 4, 5, 11, 6, 7, 8, 9, 10, 0]
    assert layout.sequence_ids(tokens).tolist() == [expected]
    assert (layout.step_length, layout.sequence_length(2), layout.num_ids) == (7, 14, 12)


def test_binned_actions_have_their_own_ids_and_explain_the_next_frame() -> None:
    layout = make_layout("binned", num_bins=4, action_min=-10.0, action_max=10.0)
    tokens = torch.zeros(1, 3, 2, 3, dtype=torch.long)
    actions = torch.tensor([[[-99.0, 99.0], [0.1, -0.1], [5.0, 5.0]]])
    ids = layout.sequence_ids(tokens, actions)[0].view(3, 8)[:, :2]
    # column 0 owns 11..16 (4 bins, start 15, no action 16), column 1 owns 17..22
    assert ids.tolist() == [[15, 21], [11, 20], [13, 18]]
    assert layout.num_ids == 23
    dropped = layout.sequence_ids(tokens, actions, torch.tensor([True]))[0].view(3, 8)[:, :2]
    assert dropped.tolist() == [[15, 21], [16, 22], [16, 22]]


def test_bins_are_uniform_in_symlog_space() -> None:
    layout = make_layout("binned", num_bins=10, action_min=-50.0, action_max=50.0)
    edge = symlog(torch.tensor(50.0))
    centres = (torch.arange(10) + 0.5) / 10 * 2 * edge - edge
    actions = centres.sign() * centres.abs().expm1()
    ids = layout.action_ids(actions.view(1, 10, 1).expand(1, 10, 2))
    assert (ids[0, :, 0] - 11).tolist() == list(range(10))
    assert (ids[0, :, 1] - 23).tolist() == list(range(10))


def test_positions_give_prefixes_row_zero() -> None:
    positions = make_layout("binned").coordinates(2)
    assert positions.shape == (16, 3)
    assert positions[:4].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]
    assert positions[-1].tolist() == [1, 2, 2]


@pytest.mark.parametrize("kind", ["none", "continuous", "binned"])
def test_every_token_is_predicted_by_the_slot_before_it(kind: str) -> None:
    layout = make_layout(kind)
    tokens = torch.randint(0, 11, (1, 3, 2, 3))
    sequence = layout.sequence_ids(tokens, torch.randn(1, 2, 2))[0]
    assert torch.equal(sequence[layout.predicting_positions(3) + 1], tokens[0].flatten(1))


def test_first_target_step_leaves_out_frames_without_a_past() -> None:
    assert make_layout("none").counted_steps(3).tolist() == [False, True, True]
    assert make_layout("none", first_target_step=0).counted_steps(3).all()


def test_a_tokenizer_with_time_inside_a_step_stacks_rows() -> None:
    spec = TokenSpec((2, 2, 3), 11, 10.0, 2, (16, 24), "test")
    layout = SequenceLayout(LayoutConfig(), spec, 0)
    assert (layout.height, layout.width, layout.step_length) == (4, 3, 13)


def test_layout_refuses() -> None:
    with pytest.raises(BadInput, match="no action columns"):
        SequenceLayout(LayoutConfig(actions="binned"), SPEC, 0)
    for settings in (
        {"actions": "some"},
        {"num_bins": 1},
        {"action_min": 1.0, "action_max": 1.0},
        {"first_target_step": -1},
    ):
        with pytest.raises(BadInput, match=r"layout\."):
            LayoutConfig(**settings)
    layout, tokens = make_layout("continuous"), torch.zeros(1, 3, 2, 3, dtype=torch.long)
    with pytest.raises(BadInput, match=r"\[batch time 2 3\]"):
        layout.check(tokens.transpose(2, 3), torch.zeros(1, 2, 2))
    for shape in ((1, 1, 2), (1, 2, 3), (2, 2, 2), (2, 2)):
        with pytest.raises(BadInput, match="actions of shape"):
            layout.check(tokens, torch.zeros(shape))


def test_without_actions_none_are_predicted_either():
    """Every training asks for it, to see whether the network reads actions at all."""
    config = LayoutConfig(actions="binned", predict_actions=0.1, text_tokens=4)
    assert config.without_actions() == LayoutConfig(text_tokens=4)
