"""Data at a URL: the same as in a folder, or a named reason; the cache stays within its bound."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_server import Faults, served

from drives import content
from drives.remote import mirror
from drives.remote.mirror import Mirror, Unreachable, fetch_whole, folder_of, is_url, mirror_of
from drives.sources import DriveSource, TokenSource
from drives.tokens.spec import TokenSpec
from drives.tokens.writer import TokenStoreWriter
from drives.writing import write_drive
from training.disk.hashing import file_sha256
from training.errors import BadInput
from training.loading.loader import OrderedLoader
from training.loading.order import DataOrder
from worldmodel.windows import TokenWindows, collate

ROOT = Path(__file__).parents[3]
SPEC = TokenSpec((1, 3, 4), 40, 10, 1, (24, 32), "test")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight drives in two shards, opened as a store of any size is."""
    monkeypatch.setattr("drives.tokens.writer.PACKED_AT", 4)
    monkeypatch.setattr("drives.tokens.store.CHECKED_AT_ONCE", 0)
    root = tmp_path / "there" / "store"
    writer = TokenStoreWriter(root, SPEC, ["speed_mps"])
    for number in range(8):
        rng = np.random.default_rng(number)
        tokens, actions = rng.integers(0, 40, (9, 3, 4)), rng.normal(size=(9, 1))
        writer.write(f"d{number}", "val" if number == 7 else "train", tokens, actions, {})
    return root


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    root = tmp_path / "there" / "drives"
    for number in range(3):
        frames = np.random.default_rng(number).integers(0, 255, (6, 16, 32, 3), np.uint8)
        actions = np.linspace(0, 1, 6, dtype=np.float32)[:, None]
        meta = {"fps": 10, "split": "train", "source": "test", "licence": "MIT"}
        write_drive(root / f"d{number}", frames, actions, ["steering"], meta)
    return root


def windows_of(source: TokenSource) -> TokenWindows:
    return TokenWindows(source.open().drives("train"), 4)


def test_a_store_at_a_url_gives_the_windows_of_the_folder(store: Path, tmp_path: Path) -> None:
    own, faults = windows_of(TokenSource(str(store))), Faults()
    with served(store.parent, faults) as url:
        source = TokenSource(f"{url}/store", cache=str(tmp_path / "cache"))
        far = windows_of(source)
        shards = [name for name in faults.asked if "shard" in name]
        assert not shards  # opening fetches the manifest and the index alone
        assert len(far) == len(own)
        for index in range(len(own)):
            for ours, theirs in zip(own[index], far[index], strict=True):
                np.testing.assert_array_equal(ours, theirs)
        windows_of(source)[0]
        assert max(n for name, n in faults.asked.items() if "shard" in name) == 1
        assert source.open().hash == TokenSource(str(store)).open().hash
    again = windows_of(source)  # without the server, what is here is used
    np.testing.assert_array_equal(again[3][0], own[3][0])


def test_faults_of_a_server_are_tried_again(store: Path, tmp_path: Path) -> None:
    own = windows_of(TokenSource(str(store)))
    with served(store.parent, Faults(fails=2, cuts=1)) as url:
        far = windows_of(TokenSource(f"{url}/store", cache=str(tmp_path / "cache")))
        np.testing.assert_array_equal(far[0][0], own[0][0])


def test_what_never_arrives_whole_is_named(store: Path, tmp_path: Path) -> None:
    with served(store.parent, Faults(fails=99)) as url:
        source = TokenSource(f"{url}/store", cache=str(tmp_path / "a"))
        with pytest.raises(BadInput, match=f"{url}/store/manifest.json: cannot be read after 5"):
            source.open()
    with served(store.parent) as url:
        with pytest.raises(BadInput, match=r"store2/manifest.json: is not there; correct the URL"):
            TokenSource(f"{url}/store2", cache=str(tmp_path / "b")).open()
        shard = min(store.glob("shard-*"))
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-9])
        short = windows_of(TokenSource(f"{url}/store", cache=str(tmp_path / "c")))
        found = [short.drives[i].damage for i in range(7)]
        assert any("bytes arrived" in reason and shard.name in reason for reason in found)
        shard.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        altered = windows_of(TokenSource(f"{url}/store", cache=str(tmp_path / "d")))
        found = [altered.drives[i].damage for i in range(7)]
        assert any("sha256" in reason and shard.name in reason for reason in found)


def test_drives_at_a_url_are_the_drives_of_the_folder(drives: Path, tmp_path: Path) -> None:
    own = DriveSource(str(drives)).open()
    with served(drives.parent) as url:
        source = DriveSource(f"{url}/drives", cache=str(tmp_path / "cache"))
        far = source.open()
        assert [drive.digest for drive in far] == [drive.digest for drive in own]
        for ours, theirs in zip(own, far, strict=True):
            np.testing.assert_array_equal(list(ours.frames()), list(theirs.frames()))
        small = DriveSource(f"{url}/drives", str(tmp_path / "small"), remote_cache_gb=1e-6)
        with pytest.raises(BadInput, match=r"are needed at once.*give data\.source\.remote_cache"):
            small.open()


def test_the_cache_stays_within_its_bound(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for number in range(6):
        (there / f"{number}.bin").write_bytes(bytes([number]) * 2_000_000)
    (there / "small.json").write_text("{}")
    with served(there) as url:
        folder = folder_of(url, tmp_path / "cache", 0.0045)  # two of them
        far = mirror_of(folder)
        assert far is not None
        far.fetch("small.json")
        for number in range(6):
            file = far.fetch(f"{number}.bin", 2_000_000)
            assert file.read_bytes()[:1] == bytes([number])
            held = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            assert held <= 4_500_000
        assert (folder / "small.json").exists()
        assert sorted(f.name for f in folder.glob("*.bin")) == ["4.bin", "5.bin"]
        far.fetch("4.bin", 2_000_000)  # used again: the other one goes first
        far.fetch("0.bin", 2_000_000)
        assert sorted(f.name for f in folder.glob("*.bin")) == ["0.bin", "4.bin"]


FETCH = """
import sys
from pathlib import Path
from drives.remote.mirror import mirror_of
print("ready", flush=True)
sys.stdin.readline()
mirror_of(Path(sys.argv[1])).fetch("a.bin")
"""


def test_processes_fetch_a_file_once(tmp_path: Path) -> None:
    there, faults = tmp_path / "there", Faults(latency_s=0.5)
    there.mkdir()
    (there / "a.bin").write_bytes(os.urandom(300_000))
    with served(there, faults) as url:
        folder = folder_of(url, tmp_path / "cache", 1.0)
        command = [sys.executable, "-c", FETCH, str(folder)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        both = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
        for process in both:
            assert process.stdout.readline() == "ready\n"
        for process in both:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.wait() for process in both] == [0, 0]
        for process in both:
            process.stdin.close()
            process.stdout.close()
    assert faults.asked["a.bin"] == 1
    assert (folder / "a.bin").read_bytes() == (there / "a.bin").read_bytes()


def test_the_loader_fetches_ahead(store: Path, tmp_path: Path) -> None:
    faults = Faults()
    with served(store.parent, faults) as url:
        far = windows_of(TokenSource(f"{url}/store", cache=str(tmp_path / "cache")))
        loader = OrderedLoader(far, DataOrder(len(far), 6, 1, seed=0), collate)
        batches = iter(loader)
        first = next(batches)
        waited = time.monotonic() + 20
        while sum("shard" in name for name in faults.asked) < 2 and time.monotonic() < waited:
            time.sleep(0.01)
        assert sum("shard" in name for name in faults.asked) == 2  # the first batch needs but one
        own = windows_of(TokenSource(str(store)))
        near = OrderedLoader(own, DataOrder(len(own), 6, 1, seed=0), collate)
        for ours, theirs in zip([first, *batches], near, strict=True):
            assert ours.tokens.equal(theirs.tokens)
            assert ours.actions.equal(theirs.actions)


def test_an_opened_store_is_examined_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "TICK_S", -1.0)  # hashes of the youngest files are kept, too
    with served(store.parent) as url:
        source = TokenSource(f"{url}/store", cache=str(tmp_path / "cache"))
        assert not windows_of(source).drives[0].damage
        read: list[Path] = []
        monkeypatch.setattr(
            content, "file_sha256", lambda path: read.append(path) or file_sha256(path)
        )
        assert not windows_of(source).drives[0].damage
        content._hashes_of.cache_clear()
        before = len(read)
        assert not windows_of(source).drives[0].damage
        assert len(read) == before


def test_a_network_that_comes_back_is_no_damage(store: Path, tmp_path: Path) -> None:
    faults = Faults()
    with served(store.parent, faults) as url:
        far = windows_of(TokenSource(f"{url}/store", cache=str(tmp_path / "cache")))
        faults.fails = 99
        with pytest.raises(Unreachable, match="cannot be read after 5 tries"):
            far[0]
        faults.fails = 0
        np.testing.assert_array_equal(far[0][0], windows_of(TokenSource(str(store)))[0][0])


def test_drives_that_change_at_the_url_change_here(drives: Path, tmp_path: Path) -> None:
    with served(drives.parent) as url:
        source = DriveSource(f"{url}/drives", cache=str(tmp_path / "cache"))
        before = {drive.id: drive.digest for drive in source.open()}
        table = drives / "d1/actions.csv"
        changed = table.read_text().replace("0.2", "0.3")
        assert len(changed) == len(table.read_text())
        time.sleep(1.1)  # HTTP's dates are whole seconds
        table.write_text(changed)
        meta = json.loads((drives / "d1/drive.json").read_text())
        del meta["actions_sha256"]
        (drives / "d1/drive.json").write_text(json.dumps(meta))
        (drives / "d2").rename(drives / "renamed")
        after = {drive.id: drive.digest for drive in source.open()}
        assert set(after) == {"d0", "d1", "renamed"}
        assert after["d0"] == before["d0"]
        assert after["d1"] != before["d1"]
        assert after == {drive.id: drive.digest for drive in DriveSource(str(drives)).open()}


def test_a_store_that_was_encoded_again_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    with served(there) as url:
        for seed in (0, 1):
            shutil.rmtree(there / "store", ignore_errors=True)
            writer = TokenStoreWriter(there / "store", SPEC, ["speed_mps"])
            tokens = np.random.default_rng(seed).integers(0, 40, (9, 3, 4))
            writer.write("d0", "train", tokens, np.zeros((9, 1)), {})
            far = TokenSource(f"{url}/store", cache=str(tmp_path / "cache")).open()
            np.testing.assert_array_equal(far.drives("train")[0].tokens, tokens)


def test_an_index_page_of_apache_and_names_with_spaces(tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "my drive").mkdir(parents=True)
    (there / "my drive" / "a b.bin").write_bytes(b"1234")
    links = ["?C=N;O=D", "?C=M;O=A", "/", "my%20drive/"]
    page = "".join(f'<a href="{link}">x</a>' for link in links)
    (there / "index.html").write_text(f"<html>{page}</html>")
    with served(there) as url:
        folder = folder_of(url, tmp_path / "cache", 1.0)
        fetch_whole(folder)
        assert (folder / "my drive" / "a b.bin").read_bytes() == b"1234"


ENDS = """
import sys
from pathlib import Path
from drives.remote.mirror import mirror_of
mirror_of(Path(sys.argv[1])).prefetch([f"{n}.bin" for n in range(60)], {})
"""


def test_a_process_does_not_wait_for_what_it_fetches_ahead(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for number in range(60):
        (there / f"{number}.bin").write_bytes(b"0")
    with served(there, Faults(latency_s=2.0)) as url:
        folder = folder_of(url, tmp_path / "cache", 1.0)
        subprocess.run([sys.executable, "-c", ENDS, str(folder)], cwd=ROOT, check=True)
        assert len(list(folder.glob("*.bin"))) < 60


@pytest.fixture
def bucket() -> Iterator[str]:
    """The endpoint of a server that speaks S3."""
    moto = pytest.importorskip("moto.server", reason="moto is a dev dependency")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_a_store_in_s3(
    store: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": bucket,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    system = s3fs.S3FileSystem(endpoint_url=bucket, skip_instance_cache=True)
    system.mkdir("driving")
    system.put(str(store), "driving/store", recursive=True)
    own = windows_of(TokenSource(str(store)))
    far = windows_of(TokenSource("s3://driving/store", cache=str(tmp_path / "cache")))
    for index in range(len(own)):
        np.testing.assert_array_equal(far[index][0], own[index][0])
    with pytest.raises(BadInput, match=r"s3://driving/nowhere/manifest.json: is not there"):
        TokenSource("s3://driving/nowhere", cache=str(tmp_path / "cache")).open()


def test_names_stay_below_the_url(tmp_path: Path) -> None:
    far = Mirror(tmp_path, "http://127.0.0.1:9", 1.0)
    for name in ("../a", "/etc/passwd", "a/../../b", "a\\b", ""):
        with pytest.raises(BadInput, match="is no file of the folder itself"):
            far.fetch(name)


def test_roots_that_are_urls() -> None:
    assert all(map(is_url, ("http://a/b", "s3://bucket/x", "HTTPS://a")))
    assert not any(map(is_url, ("/data", "data", "C:\\drives", Path("a/b"), "a:b")))
    with pytest.raises(BadInput, match="are read from a folder"):
        TokenSource("http://a/b", "commavq")
    assert folder_of("/own", Path("c"), 1.0) == Path("/own")
