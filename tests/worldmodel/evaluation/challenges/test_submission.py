"""Submissions to 1X's second challenge: what is written passes the check, what is not does not."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from drives.tokens.spec import TokenSpec
from drives.tokens.store import TokenDrive
from drives.tokens.writer import TokenStoreWriter
from training.checkpoints.folder import write_checkpoint
from training.errors import BadInput
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig
from worldmodel.evaluation.challenges import submission as module
from worldmodel.evaluation.challenges.__main__ import main
from worldmodel.evaluation.challenges.submission import (
    Submitted,
    check_submission,
    write_submission,
)
from worldmodel.evaluation.challenges.top_tokens import TopTokens, next_step, top_tokens
from worldmodel.load import manifest_of

WHO = Submitted("masked model", "us", ("A. Author",), "a@example.org", "none", "nowhere")
SIZES = {"num_samples": 2, "grid": (3, 2, 2), "vocab_size": 20, "top": 5}


def samples(count: int = 2):
    torch.manual_seed(0)
    for _ in range(count):
        yield top_tokens(torch.randn(3, 2, 2, 20).log_softmax(-1), 5)


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "submission"
    assert write_submission(out, samples(), WHO) == 2
    return out


def test_what_is_written_is_what_is_read(folder):
    assert check_submission(folder, **SIZES) == WHO
    assert sorted(file.name for file in folder.iterdir()) == ["0.npz", "1.npz", "README.txt"]
    first = next(samples())
    with np.load(folder / "0.npz") as arrays:
        assert (arrays["indices"].dtype, arrays["values"].dtype) == (np.int32, np.float32)
        np.testing.assert_array_equal(arrays["indices"], first.indices)
        np.testing.assert_array_equal(arrays["values"], first.values)
    with pytest.raises(BadInput, match="exists already"):
        write_submission(folder, samples(), WHO)


def test_the_published_size(tmp_path):
    """One sample of the real size, in the real layout."""
    sample = TopTokens(
        torch.arange(500, dtype=torch.int32).expand(3, 32, 32, 500),
        torch.full((3, 32, 32, 500), -7.0),
    )
    write_submission(tmp_path / "out", [sample], WHO)
    check_submission(tmp_path / "out", num_samples=1)
    with pytest.raises(BadInput, match=r"holds 1 \.npz files; the challenge has 450"):
        check_submission(tmp_path / "out")


def put(folder, **arrays):
    with np.load(folder / "1.npz") as found:
        np.savez(folder / "1.npz", **{**found, **arrays})


def array(name: str, change):
    def harm(folder):
        with np.load(folder / "1.npz") as found:
            put(folder, **{name: change(found[name].copy())})

    return harm


def twice(indices):
    indices[0, 0, 0, 1] = indices[0, 0, 0, 0]
    return indices


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "1.npz").unlink(), r"holds 1 \.npz files; the challenge has 2"),
        (lambda f: (f / "1.npz").write_bytes(b"PK"), r"1\.npz: is no \.npz file"),
        (array("indices", lambda x: x[..., :4]), r"indices is int32 of shape \[3, 2, 2, 4\]"),
        (array("indices", lambda x: x.astype(np.int64)), r"indices is int64 of shape"),
        (array("values", lambda x: x.astype(np.float64)), r"values is float64 of shape"),
        (array("indices", lambda x: x + 15), r"indices are not in 0 \.\. 19"),
        (array("indices", twice), "a token is listed twice"),
        (array("values", lambda x: x * np.nan), "values are not finite"),
        (array("values", lambda x: x + 9), "sum to a probability of"),
        (lambda f: put(f, more=np.zeros(1)), r"holds indices\.npy, more\.npy, values\.npy"),
        (lambda f: (f / "README.txt").unlink(), r"README\.txt: cannot be read"),
        (
            lambda f: (f / "README.txt").write_text(json.dumps({"method": "m", "team": "t"})),
            r"README\.txt: authors is missing",
        ),
    ],
)
def test_what_is_wrong_is_named(folder, harm, message):
    harm(folder)
    with pytest.raises(BadInput, match=message):
        check_submission(folder, **SIZES)
    with pytest.raises(BadInput, match="team: is empty"):
        Submitted("m", "", ("a",), "e", "i", "c")


def clips_model(grid=(3, 2, 2)):
    config = MaskedConfig(
        16, 1, 2, context_steps=2, num_prompt_frames=1, factors=(4, 5), look_back=0
    )
    torch.manual_seed(0)
    network = build_dynamics(config, TokenSpec(grid, 20, 30.0, 17, (16, 16), "test"), 0).eval()
    for parameter in network.parameters():
        parameter.data += torch.randn_like(parameter)
    return network


def clips_of(*counts: int) -> list[TokenDrive]:
    rng = np.random.default_rng(0)
    tokens = [rng.integers(0, 20, (count, 3, 2, 2)) for count in counts]
    return [TokenDrive(f"{t.shape}", "test", t, np.zeros((len(t), 0), np.float32)) for t in tokens]


@torch.no_grad()
def test_a_sample_is_the_clip_after_a_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "next_step", partial(next_step, top=5))
    network, drives = clips_model(), clips_of(1, 2)
    module.submit(network, drives, tmp_path / "out", WHO, num_samples=3)
    check_submission(tmp_path / "out", 3, (3, 2, 2), 20, 5)
    past = torch.from_numpy(drives[1].tokens[1:].reshape(1, 1, 6, 2))  # a context of two steps
    theirs = next_step(network, past, None, top=5)
    with np.load(tmp_path / "out/2.npz") as arrays:
        np.testing.assert_array_equal(arrays["indices"].reshape(12, 5), theirs.indices[0])
    with pytest.raises(BadInput, match="hold 3 clips, and 450 samples are asked for"):
        module.submit(network, drives, tmp_path / "more", WHO)
    with pytest.raises(BadInput, match="time step is one grid"):
        module.submit(clips_model((1, 2, 2)), drives, tmp_path / "more", WHO, 3)
    assert not (tmp_path / "more").exists()


@torch.no_grad()
def test_a_whole_frame_model_without_inner_layers_may_submit_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "next_step", partial(next_step, top=5))
    drives, spec = clips_of(1, 2), TokenSpec((3, 2, 2), 20, 30.0, 17, (16, 16), "test")
    config = WholeFrameConfig(dim=16, num_layers=2, num_heads=2, context_steps=3)
    torch.manual_seed(0)
    network = build_dynamics(config, spec, 0).eval()
    module.submit(network, drives, tmp_path / "out", WHO, num_samples=3)
    check_submission(tmp_path / "out", 3, (3, 2, 2), 20, 5)
    past = torch.from_numpy(drives[1].tokens.reshape(1, 2, 6, 2))
    unknown = torch.cat([past, torch.full_like(past[:, :1], 7)], 1)
    theirs = network(unknown)[:, -1].log_softmax(-1).topk(5)
    with np.load(tmp_path / "out/2.npz") as arrays:
        np.testing.assert_array_equal(arrays["indices"].reshape(12, 5), theirs.indices[0])
        np.testing.assert_allclose(arrays["values"].reshape(12, 5), theirs.values[0], atol=1e-5)
    inner = build_dynamics(replace(config, inner_layers=1), spec, 0)
    with pytest.raises(BadInput, match="WholeFrame predicts a token from real tokens of the same"):
        module.submit(inner, drives, tmp_path / "more", WHO, num_samples=3)
    assert not (tmp_path / "more").exists()


def test_the_command(tmp_path, capsys):
    network, root = clips_model((3, 32, 32)), tmp_path / "store"
    network = build_dynamics(network.config, replace(network.spec, tokenizer="cosmos_dv"), 0)
    manifest = manifest_of(network.config, network.spec, ())
    weights = {f"network.{key}": value for key, value in network.state_dict().items()}
    write_checkpoint(tmp_path / "model", weights, manifest)
    tokens = np.zeros((1, 3, 32, 32), np.int64)
    TokenStoreWriter(root, network.spec, ()).write("a", "test", tokens, np.zeros((1, 0)))
    who = ["--method=m", "--team=t", "--authors", "A", "B", "--email=e", "--country=c"]
    who += ["--institution=i", "--num-samples=1", "--device=cpu"]
    main(["submit", str(tmp_path / "model"), str(root), str(tmp_path / "out"), *who])
    assert "out: 1 samples" in capsys.readouterr().out
    with np.load(tmp_path / "out/0.npz") as arrays:
        assert arrays["indices"].shape == (3, 32, 32, 20)  # of a vocabulary of 20
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path / "out"), "--num-samples=1"])
    assert "0.npz: indices is int32 of shape [3, 32, 32, 20]" in capsys.readouterr().err
