"""Copies of the same footage are found, and laps over the same road are not."""

import io
import json
import shutil
import sys
from itertools import islice

import numpy as np
import pytest
from hydra.errors import InstantiationException
from PIL import Image

from drives.carracing.config import CarRacingConfig
from drives.carracing.drives import make_drives
from drives.duplicates.__main__ import main
from drives.duplicates.gate import refuse_duplicates
from drives.duplicates.pictures import pictures_of
from drives.duplicates.prints import Print, prints_of
from drives.duplicates.search import duplicates_among, search_drives, search_store
from drives.folder import open_drives
from drives.splits.footage import Footage
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from drives.video.reading import read_source
from drives.writing import write_drive
from training.errors import BadInput
from training.run import build_data

NUM = 80  # frames of a copy: 8 s


def saved_as_jpeg(frame):
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def cropped(frame):
    """Without 5 % of each edge."""
    height, width = frame.shape[0] // 20, frame.shape[1] // 20
    return saved_as_jpeg(np.ascontiguousarray(frame[height:-height, width:-width]))


def smaller(frame):
    return np.asarray(Image.fromarray(frame).resize((96, 64)))


def brighter(frame):
    return np.clip(frame * 1.15 + 8, 0, 255).astype(np.uint8)


def written(root, name, frames, split, fps=10):
    meta = {"fps": fps, "split": split}
    write_drive(root / name, frames, np.zeros((len(frames), 1)), ["steering"], meta)


@pytest.fixture(scope="module")
def lake(shared):
    """Thirty-three seconds of a lap, at half its size."""
    frames = read_source(shared / "data/udacity/lake/video.mp4", 400, 730)
    return [np.asarray(Image.fromarray(frame).reduce(2)) for frame in frames]


@pytest.fixture(scope="module")
def root(lake, tmp_path_factory):
    """A train drive; a test drive that shows another part of the lap."""
    folder = tmp_path_factory.mktemp("lake") / "drives"
    written(folder, "original", lake[:210], "train")
    written(folder, "elsewhere", lake[250:], "test")
    return folder


@pytest.fixture
def search(root, tmp_path):
    """`search()`: pairs among the drives of `root` and those put beside them."""
    folder = tmp_path / "drives"
    shutil.copytree(root, folder)

    def call(name="", frames=(), split="test", fps=10):
        if name:
            written(folder, name, frames, split, fps)
        return search_drives(open_drives(folder), root.parent / "cache")

    call.folder = folder
    return call


@pytest.mark.parametrize("change", [saved_as_jpeg, cropped, smaller, brighter])
def test_a_changed_copy_is_found_and_located(search, lake, change):
    assert search() == []
    (pair,) = search("copy", [change(frame) for frame in lake[120 : 120 + NUM]])
    assert (pair.a, pair.b, pair.a_split, pair.b_split) == ("original", "copy", "train", "test")
    assert 0 < pair.ratio < 0.2
    assert abs(pair.a_frames[0] - 120) <= 3
    assert abs(pair.b_frames[0]) <= 3
    assert abs(pair.a_frames[1] - (119 + NUM)) <= 3


def test_a_copy_at_another_rate_is_found(search, lake):
    half = search("half", lake[100 : 100 + NUM : 2], fps=5)
    assert [(p.a, p.b) for p in half] == [("original", "half")]
    shutil.rmtree(search.folder / "half")
    hurried = search("hurried", lake[100 : 100 + NUM], fps=30)  # the same frames, said to be faster
    assert [(p.a, p.b) for p in hurried] == [("original", "hurried")]


def test_a_renamed_file_is_the_same_whatever_it_shows(search, capsys, monkeypatch):
    shutil.copytree(search.folder / "original", search.folder / "renamed")
    meta = json.loads((search.folder / "renamed/drive.json").read_text()) | {"split": "val"}
    (search.folder / "renamed/drive.json").write_text(json.dumps(meta))
    (pair,) = search()
    assert (pair.a, pair.b, pair.ratio) == ("original", "renamed", 0.0)
    cache = search.folder.parent / "cache"
    with pytest.raises(BadInput, match=r"1 pair in different splits: original \(train\) frames 0-"):
        refuse_duplicates(open_drives(search.folder), cache, "stop", "data.duplicates")
    picture = Image.open(cache / "duplicates/drives.png")
    assert picture.height > 200
    assert len(set(picture.convert("L").tobytes())) > 50, "it shows frames"
    assert refuse_duplicates(open_drives(search.folder), cache, "off", "data.duplicates") == []
    assert refuse_duplicates(open_drives(search.folder), cache, "warn", "data.duplicates") == [pair]
    assert "warning" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["duplicates", str(search.folder), "--cache", str(cache)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "original (train)" in capsys.readouterr().err


def test_copies_within_a_split_are_no_leak(search, lake):
    assert search("copy", [saved_as_jpeg(frame) for frame in lake[:NUM]], split="train") == []


def prints(frames, names):
    """Prints of one recording, cut at even shares."""
    parts = np.array_split(pictures_of(frames), len(names))
    return [
        Print(Footage(name, name, name), 10.0, 1, part)
        for name, part in zip(names, parts, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "num_frames"), [pytest.param("lake", 1200, marks=pytest.mark.slow), ("mountain", 600)]
)
def test_laps_over_the_same_road_are_none(shared, name, num_frames):
    """The importer cuts a recording without a gap: neighbouring frames at the cut are no pair."""
    frames = read_source(shared / f"data/udacity/{name}/video.mp4", 0, num_frames)
    every = islice(frames, 0, None, 2)
    assert duplicates_among(prints(every, ["train", "val", "test"])) == []


def test_embedded_drives_are_none(tmp_path):
    """Straight roads through the same meadow, on other tracks."""
    config = CarRacingConfig(num_train=1, num_val=1, num_test=1, seconds=10.0)
    make_drives(tmp_path / "drives", config, 0)
    assert search_drives(open_drives(tmp_path / "drives"), tmp_path) == []


def walk(rng, steps, start):
    """Tokens that change as a scene does: a third of the cells in every step."""
    frames = [start]
    for _ in range(steps - 1):
        fresh = rng.integers(0, 512, start.shape)
        frames.append(np.where(rng.random(start.shape) < 0.3, fresh, frames[-1]))
    return np.stack(frames)


def test_tokens_are_compared_where_there_are_no_frames(tmp_path):
    rng = np.random.default_rng(0)
    spec = TokenSpec((1, 8, 8), 512, 10.0, 1, (64, 64), "made up")
    writer = TokenStoreWriter(tmp_path / "store", spec, ())
    road = walk(rng, 200, rng.integers(0, 512, (8, 8)))
    noisy = np.where(rng.random(road.shape) < 0.1, rng.integers(0, 512, road.shape), road)
    other = walk(rng, 200, road[-1])
    for name, split, tokens in (
        ("a", "train", road),
        ("b", "test", noisy[50:150]),
        ("c", "val", other),
    ):
        writer.write(name, split, tokens, np.zeros((len(tokens), 0), np.float32))
    store = TokenStore(tmp_path / "store")
    (pair,) = search_store(store, tmp_path)
    assert (pair.a, pair.b, pair.a_frames, pair.b_frames) == ("a", "b", (50, 149), (0, 99))
    with pytest.raises(BadInput, match=r"a \(train\) frames 50-149 and b \(test\) frames 0-99"):
        refuse_duplicates(store, tmp_path, "stop", "data.duplicates")
    assert Image.open(tmp_path / "duplicates/store.png").height > 200


def test_of_a_huge_store_only_recordings_are_compared(tmp_path, monkeypatch, capsys):
    spec = TokenSpec((1, 8, 8), 512, 10.0, 1, (64, 64), "made up")
    writer = TokenStoreWriter(tmp_path / "store", spec, ())
    road = walk(np.random.default_rng(0), 100, np.zeros((8, 8), int))
    for name, split, footage in (("a", "train", "x"), ("b", "test", "x"), ("c", "val", "y")):
        writer.write(name, split, road, np.zeros((100, 0), np.float32), {"footage": footage})
    monkeypatch.setattr("drives.duplicates.search.MAX_STEPS", 299)
    monkeypatch.setattr("drives.duplicates.search.token_prints", lambda store: pytest.fail("read"))
    (pair,) = search_store(TokenStore(tmp_path / "store"), tmp_path)
    assert {pair.a, pair.b} == {"a", "b"}
    assert "300 steps are too many" in capsys.readouterr().out


def test_what_cannot_be_decoded_is_left_out_where_that_is_asked_for(search, lake, capsys):
    search("broken", lake[:NUM], split="val")
    drives, cache = open_drives(search.folder), search.folder.parent / "other"
    video = search.folder / "broken/video.mp4"
    content = bytearray(video.read_bytes())
    content[len(content) // 2] ^= 255
    video.write_bytes(content)
    with pytest.raises(BadInput, match="broken"):
        search_drives(drives, cache)
    assert search_drives(drives, cache, "skip") == []
    assert "the search for near-duplicates goes on without it" in capsys.readouterr().out


def test_a_damaged_print_is_made_again(search, capsys):
    drives, cache = open_drives(search.folder), search.folder.parent / "other"
    before = [np.array(one.pictures) for one in prints_of(drives, cache)]
    for file in (cache / "prints").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:500])
    after = [np.array(one.pictures) for one in prints_of(drives, cache)]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert capsys.readouterr().out.count("the drive is sampled again") == 2


def test_a_run_stops_before_it_trains_unless_told_otherwise(
    search, lake, composed, tmp_path, capsys
):
    search("copy", [saved_as_jpeg(frame) for frame in lake[50 : 50 + NUM]])
    cut = ("+debug=fast", f"data.root={search.folder}", f"paths.data={tmp_path}/data")
    cut = (*cut, "data.fit=cover")
    with pytest.raises(BadInput, match=r"original \(train\) .* go on: data.duplicates=warn"):
        build_data(composed("tokenizer_tiny", *cut))
    assert (tmp_path / "data/duplicates/drives.png").exists()
    assert not (tmp_path / "data/frames").exists(), "nothing was decoded for training"
    assert build_data(composed("tokenizer_tiny", *cut, "data.duplicates=warn")).drives
    assert "warning" in capsys.readouterr().out
    assert build_data(composed("tokenizer_tiny", *cut, "data.duplicates=off")).drives
    assert "warning" not in capsys.readouterr().out
    with pytest.raises(InstantiationException, match="duplicates='maybe': choose one of stop"):
        build_data(composed("tokenizer_tiny", *cut, "data.duplicates=maybe"))
    world = (f"data.root={search.folder}", f"paths.data={tmp_path}/world")
    with pytest.raises(BadInput, match=r"go on: data\.duplicates=warn"):
        build_data(composed("gpt_tiny", "+debug=fast", *world))
    assert not (tmp_path / "world/tokens").exists(), "nothing was encoded"
