"""The page's server by plain HTTP: what a page asks, one driver, and what is refused."""

import base64
import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_world import NAMES, TinyVideo, write_world

from drives.folder import open_folders
from drives.importers.formats import RECORDING_FORMATS
from drives.video import read_frames
from tokenizer.encode import average_rows
from tokenizer.load import Tokenizer
from training.errors import BadInput
from training.help import composed
from worldmodel.commands import DriveSettings
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import rollout
from worldmodel.decoding.speculative import SpeculativeDecoder
from worldmodel.drive.__main__ import main, opened
from worldmodel.drive.recording import FORMS
from worldmodel.drive.server import HEADER, DriveServer
from worldmodel.env.pixels import DreamPixels
from worldmodel.env.starts import Starts


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    """`served("gpt")`: the server of a tiny model, which answers."""
    running: list[DriveServer] = []

    def serve(kind: str = "gpt", *settings: str, **layout: object) -> DriveServer:
        ckpt, root = write_world(tmp_path, kind, **layout)
        words = [f"ckpt={ckpt}", f"data.root={root}", "port=0", f"out={tmp_path}/saved"]
        server = opened(composed("commands/drive", [*words, *settings]))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        running.append(server)
        return server

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


def ask(server: DriveServer, what: str, client: str = "me", **values: Any) -> tuple[int, Any]:
    """Status and answer."""
    body = json.dumps(values).encode()
    request = urllib.request.Request(f"{server.url}ask/{what}", body, {HEADER: client})
    return answer(request)


def answer(request: urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=20) as found:
            return found.status, json.load(found)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_page_drives_a_rollout_rewinds_and_branches(served) -> None:
    server = served()
    status, about = ask(server, "open")
    assert (status, about["rate"], about["grid"]) == (200, 10.0, [2, 3])
    assert [c["name"] for c in about["columns"]] == list(NAMES)
    assert [c["given"] for c in about["columns"]] == [True, True, False]
    assert [c["role"] for c in about["columns"]] == ["turn", "throttle", "speed"]
    commands = [[0.5, 0.25], [-0.5, 0.75], [3.0, 0.5]]
    ask(server, "start", clip=2, seed=7)
    steps = [ask(server, "step", commands=[row])[1] for row in commands]
    assert [step["outside"] for step in steps] == [[], [], ["steering"]]
    # What the page shows is a rollout of the actions that it was shown.
    session = server.session
    start = session.world.starts[2]
    driven = torch.tensor([step["actions"][0] for step in steps])
    exact = torch.cat(session.dream.actions[3:])
    assert torch.allclose(driven, exact, atol=1e-4)
    actions = torch.cat([start.actions[:3], exact])[None]
    network = session.world.model.network
    expected = rollout(network, start.tokens[None], actions, 3, Sampling(seed=7))[0, 0]
    shown = torch.tensor([step["tokens"][0] for step in steps]).view(3, 2, 3)
    assert torch.equal(shown, expected)
    assert all(0 <= bits <= 3.5 for step in steps for bits in step["bits"][0])
    _, back = ask(server, "rewind", num=2)
    assert (back["time"], back["tokens"]) == (1, steps[0]["tokens"])
    assert back["actions"] == steps[0]["actions"]
    again = ask(server, "step", commands=[commands[1]])[1]
    assert again["tokens"] == steps[1]["tokens"]
    _, three = ask(server, "branch", num=3)
    assert three["dreams"] == len(three["tokens"]) == 3
    turned = ask(server, "step", commands=[[1, 0], [0, 0], [-1, 0]])[1]
    assert turned["tokens"][0] != turned["tokens"][2]
    _, kept = ask(server, "keep", dream=2)
    assert kept["tokens"] == [turned["tokens"][2]]
    assert ask(server, "rewind", num=99)[1]["time"] == 0


def test_the_recording_drives_until_it_ends(served) -> None:
    server = served()
    _, about = ask(server, "open")
    last = about["num_clips"] - 2
    ask(server, "start", clip=last)
    _, step = ask(server, "step", recorded=True)
    start = server.session.world.starts[last]
    assert np.allclose(step["actions"][0], start.actions[3], atol=1e-4)
    for _ in range(len(start.recorded) - 1):
        assert ask(server, "step", recorded=True)[0] == 200
    status, said = ask(server, "step", recorded=True)
    assert (status, said["error"]) == (
        400,
        f"{start.name}: the recording ends here; drive on yourself",
    )


def test_one_page_drives_until_another_takes_over(served) -> None:
    server = served()
    assert ask(server, "open", "first")[0] == 200
    status, said = ask(server, "open", "second")
    assert (status, said["error"]) == (
        409,
        "another page drives this dream; close it, or take over",
    )
    assert ask(server, "step", "second", commands=[[0, 0]])[0] == 409
    before = ask(server, "step", "first", commands=[[0, 0]])[1]["time"]
    assert ask(server, "open", "second", take=True)[1]["time"] == before  # nothing is lost
    assert ask(server, "step", "first", commands=[[0, 0]])[0] == 409
    ask(server, "close", "first")  # of no driver: nothing happens
    assert ask(server, "step", "second", commands=[[0, 0]])[0] == 200
    ask(server, "close", "second")
    assert ask(server, "open", "third")[0] == 200


REFUSED = [
    ("step", {"commands": [[0.0]]}, "actions are [1, 1]; give [1, 2]: steering"),
    ("step", {"commands": [["left", 0]]}, "are no numbers"),
    ("step", {"commands": [[float("nan"), 0.0]]}, "actions hold NaN or infinity"),
    ("step", {"speed": 3}, "step: "),
    ("start", {"clip": 999}, "start=999: give a whole number from 0 to"),
    ("start", {"clip": 0, "seed": -1}, "seed=-1"),
    ("branch", {"num": 99}, "dreams=99: give a whole number from 1 to 8"),
    ("keep", {"dream": 4}, "keep="),
    ("say", {"text": "rain"}, "reads no text"),
    ("save", {"form": "mp4"}, "give tokenizer=FOLDER"),
    ("save", {"form": "film"}, "form='film': choose one of"),
    ("rewind", {"num": 0}, "num=0"),
    ("fly", {}, "the page has no such question"),
]


def test_refuses_in_one_line_and_goes_on(served) -> None:
    server = served()
    ask(server, "open")
    for number, (what, values, message) in enumerate(REFUSED, 1):
        status, said = ask(server, what, **values)
        assert status == 400, what
        assert message in said["error"]
        assert ask(server, "step", commands=[[0, 0]])[1]["time"] == number


def test_only_this_machine_s_page_is_answered(served) -> None:
    server = served()
    assert server.server_address[0] == "127.0.0.1"
    elsewhere = urllib.request.Request(server.url, headers={"Host": "evil.example"})
    assert answer(elsewhere)[0] == 403
    assert answer(urllib.request.Request(f"{server.url}ask/open", b"{}"))[0] == 400  # no header
    wrong = [b"[]", b"{", b"\xff"]
    for body in wrong:
        asked = urllib.request.Request(f"{server.url}ask/open", body, {HEADER: "me"})
        assert answer(asked)[0] == 400
    for path in ("etc/passwd", "saved/../../etc/passwd", "saved/x.mp4"):
        assert answer(urllib.request.Request(server.url + path))[0] == 404
    with urllib.request.urlopen(server.url) as page:
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        for own in ("frame-ancestors", "base-uri", "form-action"):
            assert f"{own} 'none'" in policy
        assert page.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert b"<title>Drive a dream</title>" in page.read()


def test_a_model_without_actions_plays_a_video(served) -> None:
    server = served("whole", actions="none")
    _, about = ask(server, "open")
    assert about["columns"] == []
    assert ask(server, "step")[1]["time"] == 1
    assert ask(server, "step", recorded=True)[1]["time"] == 2


def test_a_port_in_use_is_named(served, capsys, monkeypatch) -> None:
    server = served()
    port = server.server_address[1]
    words = [f"ckpt={server.session.world.model.path}", f"port={port}"]
    root = server.session.out.parent / "tokens"
    monkeypatch.setattr(sys, "argv", ["drive", *words, f"data.root={root}"])
    with pytest.raises(SystemExit):
        main()
    assert f"port={port}: Address already in use; give another" in capsys.readouterr().err


def test_settings_reach_the_dream(served) -> None:
    server = served("gpt", "rate=3", "prompt_steps=2", "sampling.seed=5", "decoding.slide_steps=2")
    session = server.session
    assert ask(server, "open")[1]["rate"] == 3
    assert session.dream.prompt_steps == 2
    assert session.dream.seed == ask(server, "describe")[1]["seed"] == 5
    first = ask(server, "step", commands=[[0, 0]])[1]["tokens"]
    clip = session.clips[0]
    for seed, alike in ((5, True), (6, False)):
        ask(server, "start", clip=clip, seed=seed)
        assert (ask(server, "step", commands=[[0, 0]])[1]["tokens"] == first) == alike
    assert session.dream.decoder.slide_steps == 2
    assert isinstance(session.dream.decoder, SpeculativeDecoder)  # by itself, and as quick


class Painted(Tokenizer):
    """The frame of a grid is its first token, as grey."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def drive_decoder(self) -> None:
        return None

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        return (tokens[:, :1, :1, None] / 5.5 - 1).expand(-1, 3, 16, 24).float()


def grey(token: int) -> float:
    return token / 5.5 * 127.5


@pytest.fixture
def painted(served) -> DriveServer:
    """A server that shows frames."""
    server: DriveServer = served()
    session = server.session
    object.__setattr__(session.world, "tokenizer", Painted())
    session.dream.pixels = DreamPixels(Painted())
    ask(server, "open")
    return server


def test_pixels_are_sent_as_they_are(painted) -> None:
    assert ask(painted, "look")[1]["real"] == ""
    _, said = ask(painted, "step", commands=[[0, 0]], real=True)
    assert said["shape"] == [1, 1, 16, 24, 3]
    pixels = np.frombuffer(base64.b64decode(said["pixels"]), np.uint8).astype(int)
    assert pixels.shape == (16 * 24 * 3,)
    assert np.abs(pixels - grey(said["tokens"][0][0])).max() <= 1
    real = np.frombuffer(base64.b64decode(said["real"]), np.uint8).astype(int)
    start = painted.session.dream.starts[0]
    assert np.abs(real - grey(int(start.after[0][0, 0]))).max() <= 1


class Averaged:
    """A video decoder whose frame is the mean of a window's grids."""

    window_frames = 3

    def newest(self, tokens: torch.Tensor) -> torch.Tensor:
        grey_level = tokens[:, -3:].float().mean((1, 2, 3)) / 5.5 - 1
        return grey_level[:, None, None, None].expand(-1, 3, 16, 24)


def test_the_recorded_frame_is_decoded_as_the_dream_is(painted) -> None:
    session = painted.session
    session.dream.pixels = DreamPixels(Painted(), Averaged())
    _, said = ask(painted, "step", commands=[[0, 0]], real=True)
    start = session.dream.starts[0]
    grids = [*start.tokens[-2:].numpy(), start.after[0]]
    real = np.frombuffer(base64.b64decode(said["real"]), np.uint8).astype(int)
    assert np.abs(real - np.mean([grid.mean() for grid in grids]) / 5.5 * 127.5).max() <= 1


def test_clips_are_named_without_reading_them(served, monkeypatch) -> None:
    session = served().session
    names = [session.world.starts[number].name for number in session.clips]
    monkeypatch.setattr(Starts, "__getitem__", None)
    assert [clip["name"] for clip in session.describe()["clips"]] == names


@pytest.mark.parametrize("clip", [0, 2])
def test_a_saved_video_has_its_actions_from_the_last_frame_of_each_grid_on(served, clip) -> None:
    """Encoded again, every step has the row that led from it to the next."""
    server: DriveServer = served()
    session = server.session
    object.__setattr__(session.world, "tokenizer", TinyVideo())
    session.dream.pixels = DreamPixels(TinyVideo())
    ask(server, "open")
    ask(server, "start", clip=clip)
    for turn in (0.5, -0.5, 0.25):
        ask(server, "step", commands=[[turn, 0.25]])
    (drive,) = open_folders(Path(ask(server, "save", form="drive")[1]["path"]))
    rows = torch.cat(session.dream.actions).numpy()
    inside = int(clip > 0)  # frames of the first grid before its last
    assert drive.num_frames == inside + 1 + 2 * len(rows)
    assert np.allclose(average_rows(drive.actions[inside:], 2)[:-1], rows, atol=1e-4)


def test_a_dream_is_saved_whole_in_every_form(painted) -> None:
    ask(painted, "start", clip=0, seed=7)
    steps = [ask(painted, "step", commands=[[0.5, 0.25]])[1] for _ in range(3)]
    tokens = [int(grid[0, 0]) for grid in painted.session.dream.starts[0].tokens]
    tokens += [step["tokens"][0][0] for step in steps]
    places = {form: ask(painted, "save", form=form)[1] for form in FORMS}
    frames = np.stack(list(read_frames(Path(places["mp4"]["path"]))))
    assert frames.shape == (7, 256, 384, 3)
    assert np.abs(frames.mean((1, 2, 3)) - [grey(token) for token in tokens]).max() < 4
    with Image.open(places["gif"]["path"]) as gif:
        assert gif.size == (384, 256)
    (drive,) = open_folders(Path(places["drive"]["path"]))
    assert (drive.num_frames, drive.fps, drive.meta["prompt_frames"]) == (7, 10, 4)
    assert drive.meta["sampling"]["seed"] == 7
    assert np.allclose(drive.actions[3:6], [step["actions"][0] for step in steps], atol=1e-4)
    episodes = RECORDING_FORMATS["lerobot"].recordings(Path(places["lerobot"]["path"]) / "lerobot")
    assert [len(episode.actions) for episode in episodes] == [7]
    with urllib.request.urlopen(f"{painted.url}saved/{places['mp4']['name']}") as file:
        assert file.read() == Path(places["mp4"]["path"]).read_bytes()
    again = ask(painted, "save", form="mp4")[1]["path"]
    assert again != places["mp4"]["path"]  # nothing is overwritten


def test_bad_settings_are_refused() -> None:
    for wrong in ({"port": 70000}, {"rate": 0.0}, {"split": "all"}, {"prompt_steps": 0}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            DriveSettings(ckpt="x", **wrong)
