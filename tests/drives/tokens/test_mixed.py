"""Several stores read as one: ids, columns, weights; what does not go together is named."""

from pathlib import Path

import numpy as np
import pytest

from drives.mixture import MixtureSource
from drives.tokens.mixed import MixedStore, part_names
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.errors import BadInput

SPEC = TokenSpec((1, 3, 4), 40, 10, 1, (24, 32), "test")


def store(root: Path, first: int, columns: tuple[str, ...], spec: TokenSpec = SPEC) -> TokenStore:
    """Three drives whose tokens are all `first`, `first` + 1, ...; column c holds c."""
    writer = TokenStoreWriter(root, spec, columns)
    for number in range(3):
        tokens = np.full((7, 3, 4), first + number)
        actions = np.tile(np.arange(len(columns), dtype=np.float32), (7, 1)) + number
        writer.write(f"d{number}", "test" if number == 2 else "train", tokens, actions, {})
    return TokenStore(root)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, TokenStore]:
    return {
        "lake": store(tmp_path / "lake", 0, ("steering", "speed_mps")),
        "car": store(tmp_path / "car", 10, ("throttle", "speed_mps", "steering")),
    }


def test_drives_keep_their_tokens_and_give_the_common_columns(
    parts: dict[str, TokenStore], capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = MixedStore(parts)
    assert "columns throttle are not in all parts" in capsys.readouterr().out
    assert mixed.action_names == ("steering", "speed_mps")
    train = {drive.id: drive for drive in mixed.drives("train")}
    assert list(train) == ["lake/d0", "lake/d1", "car/d0", "car/d1"]
    assert train["car/d1"].tokens[0, 0, 0] == 11
    np.testing.assert_array_equal(train["car/d1"].actions[0], [3, 2])  # not the order of its file
    np.testing.assert_array_equal(train["lake/d0"].actions[0], [0, 1])
    assert [drive.id for drive in mixed.drives("test")] == ["lake/d2", "car/d2"]
    found = mixed.find("car/d2")
    assert found is not None
    assert found.num_steps == 7
    assert {entry.drive for entry in mixed.footage("test")} == {"lake/d2", "car/d2"}
    assert set(mixed.digests()) == {drive.id for drive in mixed.all}


def test_its_hash_is_that_of_parts_and_weights(parts: dict[str, TokenStore]) -> None:
    assert MixedStore(parts).hash == MixedStore(parts).hash
    assert MixedStore(parts).hash != MixedStore(parts, (1, 2)).hash
    assert MixedStore(parts, (1, 2)).hash == MixedStore(parts, (0.5, 1.0)).hash
    moved = dict(zip("ab", parts.values(), strict=True))
    assert MixedStore(moved, (1, 2)).hash == MixedStore(parts, (1, 2)).hash
    assert MixedStore(parts).hash != MixedStore({"lake": parts["lake"]}).hash


def test_what_does_not_go_together_is_named(parts: dict[str, TokenStore], tmp_path: Path) -> None:
    fast = store(
        tmp_path / "fast", 0, ("steering",), TokenSpec((1, 3, 4), 40, 20, 1, (24, 32), "test")
    )
    with pytest.raises(BadInput, match=r"fast: fps is 20.*lake is 10"):
        MixedStore({**parts, "fast": fast})
    other = store(tmp_path / "other", 0, ("brake",))
    with pytest.raises(BadInput, match="no action column is in all parts"):
        MixedStore({**parts, "other": other})


def test_the_source_opens_them_by_name(parts: dict[str, TokenStore]) -> None:
    roots = [str(part.root) for part in parts.values()]
    source = MixtureSource(roots=roots, weights=(0.7, 0.3))
    opened = source.open()
    assert isinstance(opened, MixedStore)
    assert opened.part_weights == {"lake": 0.7, "car": 0.3}
    assert source.planned() == (SPEC, ("steering", "speed_mps"), False)
    assert part_names(["/a/x", "/b/x", "c"]) == ["x", "x-2", "c"]
    assert part_names(["x/a-2", "y/a", "z/a"]) == ["a-2", "a", "a-3"]
    for wrong, says in (
        ({"roots": ()}, r"data\.source\.roots"),
        ({"roots": roots, "root": "here"}, r"data\.root=here: .* give data\.source\.roots"),
        ({"roots": roots, "format": "commavq"}, r"data\.source\.format=commavq: .* leave it out"),
        ({"roots": roots, "weights": (1.0,)}, "give one each"),
        ({"roots": roots, "weights": (1.0, 0.0)}, r"data\.source\.weights"),
    ):
        with pytest.raises(BadInput, match=says):
            MixtureSource(**wrong)
