"""Every helper takes its range, and neither NaN nor another type."""

import math

import pytest

from training.disk.places import writable_file, writable_folder
from training.errors import BadInput
from training.ranges import at_least, below_one, multiple_of, one_of, positive, share, within


@pytest.mark.parametrize(
    ("judge", "good", "bad"),
    [
        (positive, [1, 1e-9], [0, -1]),
        (share, [0, 0.5, 1], [-0.1, 1.1]),
        (lambda **kw: at_least(1, **kw), [1, 2, 3.0], [0, -1, 1.5]),
        (lambda **kw: at_least(0.0, **kw), [0, 0.5], [-0.1]),
        (below_one, [0, 0.99], [1, -0.1]),
        (lambda **kw: within(1, 3, **kw), [1, 3], [0, 4, 1.5]),
    ],
)
def test_numbers_in_their_range_pass_and_others_are_named(judge, good, bad):
    for value in good:
        judge(name=value)
    for value in [*bad, math.nan, math.inf, -math.inf, "abc", None, True]:
        with pytest.raises(BadInput, match=r"^name=.*: give a"):
            judge(name=value)


def test_every_entry_of_a_list_is_judged():
    at_least(1, sides=(2, 1))
    at_least(1, sides=())
    with pytest.raises(BadInput, match=r"^sides=\[2, 0\]: give a whole number from 1 on, each$"):
        at_least(1, sides=[2, 0])


def test_a_divisor_is_named():
    multiple_of(4, "num_heads", dim=8)
    for divisor, value in ((4, 6), (4, 0), (0, 8)):
        with pytest.raises(BadInput, match=f"^dim={value}: give .* num_heads={divisor}$"):
            multiple_of(divisor, "num_heads", dim=value)


def test_a_choice_is_one_of_those_named():
    one_of(("a", "b"), "group.", name="b")
    with pytest.raises(BadInput, match=r"^group.name='c': choose one of a, b$"):
        one_of(("a", "b"), "group.", name="c")


def test_a_place_is_judged_without_a_trace(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert writable_folder("out", tmp_path / "a/b") == tmp_path / "a/b"
    assert writable_file("out", tmp_path / "a/b.mp4") == tmp_path / "a/b.mp4"
    for path, word in (
        ("", "is empty"),
        ("/proc/x", "nothing can be written in /proc"),
        (file, "is a file"),
        (file / "below", "is a file"),
    ):
        with pytest.raises(BadInput, match=word):
            writable_folder("out", path)
    with pytest.raises(BadInput, match="is a folder"):
        writable_file("out", tmp_path)
    assert list(tmp_path.iterdir()) == [file]
