"""Every helper takes its range, and neither NaN nor another type."""

import math

import pytest

from training.disk.places import writable_file, writable_folder
from training.errors import BadInput
from training.ranges import at_least, one_of, positive, share


@pytest.mark.parametrize(
    ("judge", "good", "bad"),
    [
        (positive, [1, 1e-9], [0, -1]),
        (share, [0, 0.5, 1], [-0.1, 1.1]),
        (lambda **kw: at_least(1, **kw), [1, 2, 3.0], [0, -1, 1.5]),
        (lambda **kw: at_least(0.0, **kw), [0, 0.5], [-0.1]),
    ],
)
def test_numbers_in_their_range_pass_and_others_are_named(judge, good, bad):
    for value in good:
        judge(name=value)
    for value in [*bad, math.nan, math.inf, -math.inf, "abc", None, True]:
        with pytest.raises(BadInput, match=r"^name=.*: give a"):
            judge(name=value)


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
