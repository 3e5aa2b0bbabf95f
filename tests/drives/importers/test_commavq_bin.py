"""commaVQ's stream for nanoGPT: in and out to the bit, and what is no such stream."""

import numpy as np
import pytest
from commavq_files import make_segments, write_tar

from drives.exporters.__main__ import main as export_main
from drives.importers.__main__ import main
from drives.importers.tokens.commavq_bin import find_bins, read_segments
from drives.importers.tokens.formats import recognised_format
from drives.sources import TokenSource
from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenStore
from drives.tokens.writer import TokenStoreWriter
from training.errors import BadInput


def prepared(tokens: np.ndarray) -> np.ndarray:
    """Upstream's own steps (nanogpt/prepare.py)."""
    flat = tokens.reshape(len(tokens), -1)
    flat = np.c_[np.ones(len(flat), dtype=np.int16) * 1024, flat].reshape(-1)
    return np.r_[flat, 1025].astype(np.uint16)


@pytest.fixture
def segments():
    made = make_segments(12, poses=False)
    return [made[key]["token.npy"] for key in sorted(made)]


def test_a_stream_becomes_drives_and_a_stream_again(segments, tmp_path):
    source = tmp_path / "in/train.bin"
    source.parent.mkdir()
    np.concatenate([prepared(tokens) for tokens in segments]).tofile(source)
    main(["commavq_bin", str(source.parent), str(tmp_path / "store")])
    store = TokenStore(tmp_path / "store")
    assert (store.spec.grid, store.spec.vocab_size, store.spec.fps) == ((1, 8, 16), 1024, 20)
    drives = sorted(store.all, key=lambda drive: drive.id)
    assert len({drive.split for drive in drives}) > 1  # by a hash of the name
    for drive, tokens in zip(drives, segments, strict=True):
        np.testing.assert_array_equal(drive.tokens, tokens)
    export_main(["commavq_bin", str(tmp_path / "store"), str(tmp_path / "out")])
    written = {path.stem: list(read_segments(path)) for path in find_bins(tmp_path / "out")}
    for split, found in written.items():
        wanted = [drive.tokens for drive in store.all if drive.split == split]
        for mine, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_what_upstream_writes_is_what_is_exported(segments, tmp_path):
    write_tar(tmp_path / "a.tar", make_segments(12, poses=False))
    main(["commavq", str(tmp_path / "a.tar"), str(tmp_path / "store")])
    export_main(["commavq_bin", str(tmp_path / "store"), str(tmp_path / "out")])
    store = TokenStore(tmp_path / "store")
    train = [prepared(np.asarray(d.tokens)) for d in store.all if d.split == "train"]
    got = np.fromfile(tmp_path / "out/train.bin", np.uint16)
    np.testing.assert_array_equal(got, np.concatenate(train))
    with pytest.raises(SystemExit):
        export_main(["commavq_bin", str(tmp_path / "store"), str(tmp_path / "out")])


def test_training_takes_it_and_files_are_splits(segments, tmp_path):
    for name, part in (("train", segments[:9]), ("val", segments[9:])):
        np.concatenate([prepared(tokens) for tokens in part]).tofile(tmp_path / f"{name}.bin")
    assert recognised_format(tmp_path) == "commavq_bin"
    source = TokenSource(str(tmp_path), "commavq_bin", cache=str(tmp_path / "cache"))
    assert source.planned()[1] == ()
    store = source.open()
    assert sorted(d.id for d in store.drives("val")) == [f"val-{i:06d}" for i in range(3)]


def cut(stream):
    return stream[:-129]


def without_end(stream):
    return stream[:-1]


def another_vocabulary(stream):
    stream[200] = 1500
    return stream


def shifted(stream):
    stream[[129, 130]] = stream[[130, 129]]
    return stream


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, r"ends within the segment at number 0"),
        (without_end, r"ends within the segment at number 0"),
        (another_vocabulary, r"number 200 is 1500"),
        (shifted, r"number 129 is \d+; BOS"),
        (lambda stream: stream[1:], r"the segment at number 0 has 3095 numbers"),
        (lambda stream: stream.byteswap(), "big-endian"),
        (lambda stream: stream[:0], "has 0 bytes"),
        (lambda stream: stream.view(np.uint8)[:-1], "no whole number of uint16"),
    ],
)
def test_other_streams_are_refused(harm, said, tmp_path):
    tokens = np.arange(24 * 128).reshape(24, 128) % 1000
    harm(prepared(tokens)).tofile(tmp_path / "train.bin")
    with pytest.raises(BadInput, match=said) as error:
        list(read_segments(tmp_path / "train.bin"))
    assert "train.bin" in str(error.value)


def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path, capsys):
    spec = TokenSpec((1, 2, 2), 2**16, 10, 1, (32, 32), "a tokenizer")
    writer = TokenStoreWriter(tmp_path / "store", spec, [])
    writer.write("a", "train", np.zeros((4, 2, 2), int), np.zeros((4, 0), np.float32))
    with pytest.raises(SystemExit):
        export_main(["commavq_bin", str(tmp_path / "store"), str(tmp_path / "out")])
    assert "65536 tokens" in capsys.readouterr().err
