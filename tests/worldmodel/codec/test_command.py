"""The command: round trips of files and stores, what it refuses, and what survives."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from codec_files import (
    NAMES,
    SMALL,
    SPEC,
    make_checkpoint,
    make_file,
    make_store,
    make_tokens,
    refused,
)

from drives.tokens.store import TokenStore
from training.checkpoints.folder import write_checkpoint
from training.errors import BadInput
from worldmodel.codec import machine
from worldmodel.codec.__main__ import main
from worldmodel.codec.compress import packed_actions, unpacked_actions
from worldmodel.codec.reading import examine, read_header
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.load import manifest_of

pytest.importorskip("constriction")


def test_a_file_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_file(tmp_path / "tokens.npy")
    coded, back = tmp_path / "t.codec", tmp_path / "back.npy"
    main(["compress", source, "-o", str(coded), "--floors", "unigram,previous", *SMALL])
    main(["decompress", str(coded), "-o", str(back), "--parallel", "3"])
    assert back.read_bytes() == Path(source).read_bytes()
    main(["info", str(coded)])
    shown = capsys.readouterr().out
    for part in ("unigram, previous", "exact", "steps 14 to 19", "20 steps in 3 segments"):
        assert part in shown
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back.npy", "t.codec", "tokens.npy"]


def test_a_store_comes_back_with_its_actions(tmp_path: Path) -> None:
    source, ckpt = make_store(tmp_path / "store"), make_checkpoint(tmp_path / "ckpt")
    coded, back = str(tmp_path / "t.codec"), tmp_path / "back"
    main(["compress", source, "-o", coded, "--ckpt", ckpt, "--floors", "unigram", *SMALL])
    main(["decompress", coded, "-o", str(back), "--ckpt", ckpt, "--parallel", "5"])
    ours, theirs = TokenStore(Path(source)), TokenStore(back)
    assert theirs.hash == ours.hash  # tokens, actions, captions, splits and tokenizer
    assert theirs.action_names == NAMES
    assert dict(theirs.catalog)["d1"]["meta"] == dict(ours.catalog)["d1"]["meta"]


def test_verify_prints_what_others_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, ckpt = make_store(tmp_path / "store"), make_checkpoint(tmp_path / "ckpt")
    main(["verify", source, "--ckpt", ckpt, *SMALL])
    rows = dict(
        (line.rsplit(maxsplit=2)[0].strip(), line.split()[-2])
        for line in capsys.readouterr().out.splitlines()[2:]
    )
    exact = float(rows["cross entropy under the same scoring"])
    assert float(rows["cross entropy in floating point"]) == pytest.approx(exact, abs=1e-3)
    assert float(rows["this codec"]) == pytest.approx(exact, abs=0.6)  # a word per segment
    assert float(rows["uniform, learned while coding"]) == pytest.approx(np.log2(11), abs=1e-2)
    assert {"lzma, as given", "lzma, transposed", "previous, learned while coding"} <= set(rows)


def test_the_first_step_costs_the_vocabulary_and_the_rest_the_cross_entropy(
    tmp_path: Path, shared: Path
) -> None:
    """Real tokens under an untrained model: the code is as large as the cross entropy says."""
    tokens = np.load(shared / "data/commavq/tokens.npy")[:30]
    spec = replace(SPEC, grid=(1, 8, 16), vocab_size=1024)
    config = WholeFrameConfig(32, 2, 0, 2, context_steps=3)
    torch.manual_seed(0)
    network = build_dynamics(config, spec, 0)
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    write_checkpoint(tmp_path / "ckpt", weights, manifest_of(config, spec, ()))
    np.save(tmp_path / "tokens.npy", tokens)
    coded = str(tmp_path / "t.codec")
    main(["compress", str(tmp_path / "tokens.npy"), "-o", coded, "--ckpt", str(tmp_path / "ckpt")])
    found = examine(Path(coded))
    bits = sum(about.bits for about in found.segments.values())
    assert 8 * found.code_bytes == pytest.approx(bits, rel=1e-3)
    assert bits > 10 * 128  # the first step alone


def test_actions_come_back_to_the_bit() -> None:
    actions = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    actions[3, 1], actions[4, 1], actions[5, 2] = np.nan, -0.0, np.inf
    packed = packed_actions(actions)
    assert unpacked_actions(packed, 50, 3).tobytes() == actions.tobytes()
    still = np.zeros((2000, 3), np.float32)
    assert len(packed_actions(still)) < 100
    with pytest.raises(BadInput, match="bytes, not"):
        unpacked_actions(packed_actions(still), 50, 3)


def test_bad_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, ckpt = make_file(tmp_path / "tokens.npy"), make_checkpoint(tmp_path / "ckpt")
    plain, out = make_checkpoint(tmp_path / "plain", 0, "none"), str(tmp_path / "t.codec")
    strange = str(tmp_path / "strange.npy")
    np.save(strange, make_tokens(4) + 1)
    wide, words = str(tmp_path / "wide.npy"), str(tmp_path / "words.npy")
    np.save(wide, np.zeros((4, 3, 3), np.int16))
    np.save(words, np.zeros((4, 3, 3), np.float32))
    cases = {
        (source,): "nothing predicts the tokens",
        (source, "--floors", "bigram"): "choose one of uniform, unigram, previous",
        (source, "--floors", "unigram", "--parallel", "0"): "parallel=0",
        (source, "--ckpt", ckpt): "holds no actions",
        (strange, "--ckpt", plain): "holds token 11, outside the vocabulary 0..10",
        (wide, "--ckpt", plain): "token grid is (3, 3)",
        (words, "--floors", "unigram"): "give integers",
        (str(tmp_path / "none.npy"), "--floors", "unigram"): "cannot be read",
        (source, "--ckpt", str(tmp_path / "nowhere")): "nowhere",
    }
    for arguments, message in cases.items():
        assert message in refused(capsys, "compress", *arguments, "-o", out)
    assert message in refused(capsys, "compress", *arguments, "-o", out)
    assert not [p for p in tmp_path.iterdir() if "codec" in p.name]
    assert "is no container" in refused(capsys, "info", source)


def test_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, ckpt = make_store(tmp_path / "store"), make_checkpoint(tmp_path / "ckpt")
    coded, back = str(tmp_path / "t.codec"), str(tmp_path / "back")
    main(["compress", source, "-o", coded, "--ckpt", ckpt])
    other = make_checkpoint(tmp_path / "other", 1)
    assert "give that checkpoint" in refused(
        capsys, "decompress", coded, "-o", back, "--ckpt", other
    )
    assert "give the same with --ckpt" in refused(capsys, "decompress", coded, "-o", back)
    assert not Path(back).exists()
    assert "exists already" in refused(capsys, "compress", source, "-o", coded, "--ckpt", ckpt)


def test_floats_decode_on_their_machine_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, ckpt = make_store(tmp_path / "store"), make_checkpoint(tmp_path / "ckpt")
    coded, back = str(tmp_path / "t.codec"), tmp_path / "back"
    main(["compress", source, "-o", coded, "--ckpt", ckpt, "--arithmetic", "float", *SMALL])
    assert read_header(Path(coded))[0].machine == machine.machine()
    decode = ["decompress", coded, "-o", str(back), "--ckpt", ckpt]
    assert "2 segments at once" in refused(capsys, *decode, "--parallel", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert "would decode to other tokens" in refused(capsys, *decode)
    torch.set_num_threads(threads)
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    assert "torch=" in refused(capsys, *decode)
    monkeypatch.undo()
    main(decode)
    assert TokenStore(back).hash == TokenStore(Path(source)).hash


@pytest.mark.parametrize("arithmetic", ["exact", "float"])
def test_whole_segments_of_a_damaged_container_are_recovered(
    arithmetic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Segments: d0 three, d1 one, d2 three; the second is damaged, and the end is gone."""
    source, ckpt = make_store(tmp_path / "store"), make_checkpoint(tmp_path / "ckpt")
    coded, back = tmp_path / "t.codec", tmp_path / "back"
    main(["compress", source, "-o", str(coded), "--ckpt", ckpt, "--arithmetic", arithmetic, *SMALL])
    ends = examine(coded).ends
    content = bytearray(coded.read_bytes())
    content[ends[0] + 60] ^= 1
    coded.write_bytes(content[: ends[5] + 30])
    decode = ["decompress", str(coded), "-o", str(back), "--ckpt", ckpt]
    message = refused(capsys, *decode)
    assert "segments 1 to 1" in message
    assert "truncated" in message
    assert not back.exists()
    main([*decode, "--recover"])
    found = {drive.id: drive for drive in TokenStore(back).all}
    alone = {"d0-from-0": (0, 7)} if arithmetic == "exact" else {}
    wanted = alone | {"d0-from-14": (14, 16), "d1": (0, 3), "d2-from-0": (0, 14)}
    assert set(found) == set(wanted)
    for name, (first, stop) in wanted.items():
        drive = TokenStore(Path(source)).find(name[:2])
        assert drive is not None
        assert np.array_equal(found[name].tokens, drive.tokens[first:stop])
        assert np.array_equal(found[name].actions, drive.actions[first:stop])


def test_tokens_that_decode_otherwise_are_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the arithmetic were not exact after all."""
    source, ckpt = make_store(tmp_path / "store"), make_checkpoint(tmp_path / "ckpt")
    coded, back = str(tmp_path / "t.codec"), tmp_path / "back"
    main(["compress", source, "-o", coded, "--ckpt", ckpt])
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(
        "worldmodel.codec.exact.numbers.softmax", lambda x: softmax(x.double() * 1.001, -1)
    )
    message = refused(capsys, "decompress", coded, "-o", str(back), "--ckpt", ckpt)
    assert "decoded to other tokens" in message or "fit no token" in message
    assert not [p for p in tmp_path.iterdir() if "back" in p.name]


COMPRESS = "from worldmodel.codec.__main__ import main; import sys; main(sys.argv[1:])"


@pytest.mark.slow
def test_a_killed_compression_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, coded = make_file(tmp_path / "tokens.npy", 4000), tmp_path / "t.codec"
    command = ["compress", source, "-o", str(coded), "--floors", "previous", *SMALL]
    partial = tmp_path / ".t.codec.partial"
    with subprocess.Popen([sys.executable, "-c", COMPRESS, *command]) as process:
        while process.poll() is None and (not partial.exists() or partial.stat().st_size < 20_000):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not coded.exists()
    left = partial.read_bytes()
    main(command)
    assert not partial.exists()
    shown = capsys.readouterr().err
    again = tmp_path / "again.codec"
    main(["compress", source, "-o", str(again), "--floors", "previous", *SMALL])
    assert coded.read_bytes() == again.read_bytes()
    assert coded.read_bytes()[: len(left) // 2] == left[: len(left) // 2]
    assert "0%" not in shown.splitlines()[0]  # the bar begins behind what was there


def test_what_another_command_began_is_not_continued(tmp_path: Path) -> None:
    source, coded = make_file(tmp_path / "tokens.npy"), tmp_path / "t.codec"
    main(["compress", source, "-o", str(coded), "--floors", "previous", *SMALL])
    content = coded.read_bytes()
    partial = tmp_path / ".t.codec.partial"
    ends = examine(coded).ends
    for begun in (content[: ends[1] + 9], content[:10], b"something else", content[:-1]):
        coded.unlink()
        partial.write_bytes(begun)
        main(["compress", source, "-o", str(coded), "--floors", "previous", *SMALL])
        assert coded.read_bytes() == content
    partial.write_bytes(content[: ends[1]])
    other = ["--floors", "unigram", *SMALL]
    coded.unlink()
    main(["compress", source, "-o", str(coded), *other])
    assert read_header(coded)[0].predictors == ({"name": "unigram"},)


def test_a_full_disk_leaves_nothing_under_the_name(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_file(tmp_path / "tokens.npy", 3000)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(5 * 2**20 - 8 * 2**10))
    coded = small_disk / "t.codec"
    command = ["compress", source, "-o", str(coded), "--floors", "uniform", "--segment-steps", "60"]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not coded.exists()
    filler.unlink()
    main(command)  # it goes on where it stopped
    back = tmp_path / "back.npy"
    main(["decompress", str(coded), "-o", str(back)])
    assert back.read_bytes() == Path(source).read_bytes()
    filler.write_bytes(bytes(5 * 2**20 - 48 * 2**10))
    with pytest.raises(SystemExit) as ended:
        main(["decompress", str(coded), "-o", str(small_disk / "back.npy")])
    assert ended.value.code == 1
    assert sorted(p.name for p in small_disk.iterdir()) == ["filler", "t.codec"]


def test_half_of_a_gpts_context_leaves_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header says how many frames; containers of before do not, and a quarter left."""
    config = GPTConfig(dim=24, num_layers=1, num_heads=2, context_steps=4)
    torch.manual_seed(0)
    weights = build_dynamics(config, SPEC, 0).state_dict()
    named = {f"network.{name}": value for name, value in weights.items()}
    ckpt = str(tmp_path / "gpt")
    write_checkpoint(Path(ckpt), named, manifest_of(config, SPEC, ()))
    source = make_file(tmp_path / "tokens.npy", 9)

    def coded(name: str, *options: str) -> tuple[object, int]:
        path = tmp_path / name
        main(["compress", source, "-o", str(path), "--ckpt", ckpt, *options])
        main(["decompress", str(path), "-o", f"{path}.npy", "--ckpt", ckpt])
        assert np.array_equal(np.load(f"{path}.npy"), np.load(source))
        bits = sum(about.bits for about in examine(path).segments.values())
        return read_header(path)[0].predictors[0]["slide_steps"], bits

    own, two, one = coded("own"), coded("two", "--slide-steps", "2"), coded("1", "--slide-steps=1")
    assert own == two
    assert (own[0], one[0]) == (2, 1)
    assert one[1] != two[1]
    monkeypatch.setattr("worldmodel.codec.compress.slides_of", lambda models, asked: [None])
    assert coded("before") == (None, one[1])
    monkeypatch.undo()
    wrong = ["compress", source, "-o", str(tmp_path / "wrong"), "--ckpt", ckpt]
    assert "slide_steps=4" in refused(capsys, *wrong, "--slide-steps", "4")
