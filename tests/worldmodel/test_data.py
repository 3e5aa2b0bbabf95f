"""Windows of tokens: none crosses between drives, all are there, bad stores are named."""

import numpy as np
import pytest

from drives.tokens.store import TokenDrive
from training.errors import BadInput
from worldmodel.windows import TokenWindows, collate


def drive(start: int, steps: int) -> TokenDrive:
    tokens = np.arange(start, start + steps, dtype=np.uint16)[:, None, None] * np.ones((1, 2, 2))
    actions = np.arange(start, start + steps, dtype=np.float32)[:, None]
    return TokenDrive(f"d{start}", "train", tokens.astype(np.uint16), actions)


def test_every_window_lies_inside_one_drive_and_keeps_its_actions():
    windows = TokenWindows([drive(0, 5), drive(100, 3), drive(200, 7)], num_steps=4)
    assert len(windows) == 2 + 0 + 4
    seen = [tokens[:, 0, 0].tolist() for tokens, _ in (windows[i] for i in range(len(windows)))]
    assert seen[0] == [0, 1, 2, 3]
    assert seen[2] == [200, 201, 202, 203]
    assert all(window == list(range(window[0], window[0] + 4)) for window in seen)
    for i in range(len(windows)):
        tokens, actions = windows[i]
        assert tokens[:, 0, 0].tolist() == actions[:, 0].tolist()


def test_windows_longer_than_every_drive_are_refused():
    with pytest.raises(BadInput, match="longest: 7"):
        TokenWindows([drive(0, 5), drive(10, 7)], num_steps=8)


def test_a_batch_has_integer_tokens_and_float_actions():
    windows = TokenWindows([drive(0, 6)], num_steps=3, stride=3)
    clip = collate([windows[0], windows[1]])
    assert clip.tokens.shape == (2, 3, 2, 2)
    assert str(clip.tokens.dtype) == "torch.int64"
    assert clip.actions[:, :, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
