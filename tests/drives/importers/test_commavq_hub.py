"""commaVQ's tars from a server that speaks as the hub does: cached, streamed, and failing."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from commavq_files import make_segments, write_tar

from drives.importers.__main__ import main
from drives.tokens.store import TokenStore

REPO, COMMIT = "commaai/commavq", "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """One dataset; `asked` holds the paths of all downloads."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.asked = folder, list[str]()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        api = f"/api/datasets/{REPO}/revision/main"
        resolve = f"/datasets/{REPO}/resolve/{COMMIT}/"
        if self.path == api:
            names = sorted(path.name for path in self.server.folder.iterdir())
            files = [{"rfilename": name} for name in names]
            body = json.dumps({"id": REPO, "sha": COMMIT, "siblings": files}).encode()
            self.send(200, body, {"Content-Type": "application/json"}, with_body)
        elif self.path.startswith(resolve):
            file = self.server.folder / self.path.removeprefix(resolve)
            body = file.read_bytes()
            if with_body:
                self.server.asked.append(file.name)
            tag = f'"{hashlib.sha256(body).hexdigest()}"'
            self.send(200, body, {"X-Repo-Commit": COMMIT, "ETag": tag}, with_body)
        else:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)

    def send(self, code: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """The test's output is no log."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "README.md").write_text("commaVQ")
    made = list(make_segments(6, poses=True).items())
    for index in range(3):
        write_tar(folder / f"data-000{index}.tar.gz", dict(made[2 * index : 2 * index + 2]))
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_tars_come_one_by_one_and_are_kept(hub, tmp_path):
    words = ["commavq_hub", REPO, str(tmp_path / "out"), f"--endpoint={hub.endpoint}"]
    main([*words, "--num-tars=2"])
    store = TokenStore(tmp_path / "out")
    segments = make_segments(6)
    assert {drive.id for drive in store.all} == {f"segment-0{index}" for index in range(4)}
    for drive in store.all:
        np.testing.assert_array_equal(drive.tokens, segments[drive.id]["token.npy"])
        assert len(drive.actions[0]) == 6
    assert sorted(hub.asked) == ["data-0000.tar.gz", "data-0001.tar.gz"]
    assert list((tmp_path / "cache").rglob("*.tar.gz"))
    main(words)  # the rest; what is cached is not fetched again
    assert len(TokenStore(tmp_path / "out").all) == 6
    assert sorted(hub.asked) == [f"data-000{index}.tar.gz" for index in range(3)]
    main(words)
    assert len(hub.asked) == 3


def test_a_stream_keeps_nothing_but_the_store(hub, tmp_path):
    out = tmp_path / "out"
    main(["commavq_hub", REPO, str(out), f"--endpoint={hub.endpoint}", "--stream"])
    assert len(TokenStore(out).all) == 6
    assert not list((tmp_path / "cache").rglob("*.tar.gz"))


def test_a_damaged_tar_is_named_and_the_drives_before_it_stay(hub, tmp_path, capsys):
    tar = hub.folder / "data-0001.tar.gz"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-100])
    words = ["commavq_hub", REPO, str(tmp_path / "out"), f"--endpoint={hub.endpoint}"]
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert "data-0001.tar.gz: is damaged or incomplete" in capsys.readouterr().err
    assert len(TokenStore(tmp_path / "out").all) == 2
    tar.write_bytes(whole)
    shutil.rmtree(tmp_path / "cache")
    main(words)
    assert len(TokenStore(tmp_path / "out").all) == 6


def test_a_segment_in_two_tars_is_named(hub, tmp_path, capsys):
    shutil.copy(hub.folder / "data-0000.tar.gz", hub.folder / "data-0002.tar.gz")
    with pytest.raises(SystemExit):
        main(["commavq_hub", REPO, str(tmp_path / "out"), f"--endpoint={hub.endpoint}"])
    assert "segment segment-00 is in another tar as well" in capsys.readouterr().err


def test_what_cannot_be_fetched_is_one_line(hub, tmp_path, capsys):
    for words in (
        ["nobody/nothing"],
        [REPO, "--num-tars=0"],
        [REPO, "--endpoint=http://127.0.0.1:9"],
    ):
        repo, *more = words
        with pytest.raises(SystemExit) as error:
            main(["commavq_hub", repo, str(tmp_path / "out"), f"--endpoint={hub.endpoint}", *more])
        assert error.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
