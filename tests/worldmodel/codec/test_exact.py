"""Exact arithmetic: right, and the same bits in any order, batch, number of threads, on any CPU."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drives.tokens.store import TokenSpec
from training.errors import BadInput
from worldmodel.codec.coder import decode, encode
from worldmodel.codec.distributions.network import CACHES, EXACT, NetworkPredictor, network_hash
from worldmodel.codec.distributions.predictors import Told, sent
from worldmodel.codec.exact import numbers, tables
from worldmodel.codec.exact.attention import NARROW, WIDE, Way, attention
from worldmodel.codec.exact.mode import ExactArithmetic
from worldmodel.dynamics.base import Dynamics
from worldmodel.dynamics.config import LayoutConfig
from worldmodel.dynamics.gpt.config import GPTConfig
from worldmodel.dynamics.keyframes.config import KeyframesConfig
from worldmodel.dynamics.kinds import build_dynamics
from worldmodel.dynamics.masked.config import MaskedConfig
from worldmodel.dynamics.whole_frame.config import WholeFrameConfig

SPEC = TokenSpec((1, 2, 3), 11, 10.0, 1, (16, 24), "test")
KINDS = {
    "whole": WholeFrameConfig(24, 4, 0, 2, context_steps=3, layout=LayoutConfig("continuous")),
    "inner": WholeFrameConfig(24, 2, 1, 2, context_steps=3),
    "raster": GPTConfig(
        dim=24, num_layers=2, num_heads=2, context_steps=3, layout=LayoutConfig("binned", 8)
    ),
    "llama": GPTConfig(
        dim=24, num_layers=1, num_heads=2, num_kv_heads=1, norm="rms", mlp="swiglu", context_steps=3
    ),
    "acting": GPTConfig(
        dim=24,
        num_layers=1,
        num_heads=2,
        context_steps=3,
        look_back=3,
        positions="learned",
        layout=LayoutConfig("continuous"),
    ),
    "keyframes": KeyframesConfig(
        dim=24,
        num_layers=2,
        num_heads=2,
        context_steps=4,
        keyframes=1,
        keyframe_every=2,
        layout=LayoutConfig("continuous"),
    ),
    "masked": MaskedConfig(dim=24, num_layers=1, num_heads=2, context_steps=3),
}
STEPS = (6, 4, 6)


def network(kind: str) -> Dynamics:
    """No two logits alike. By numpy: torch draws other numbers with other instructions."""
    generator = np.random.default_rng(0)
    model = build_dynamics(KINDS[kind], SPEC, 2).eval().requires_grad_(False)
    for parameter in model.parameters():
        drawn = torch.from_numpy(generator.normal(size=tuple(parameter.shape)) * 0.15)
        parameter.copy_(drawn + (parameter.ndim == 1))
    return model


def clips() -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(1)
    tokens = [generator.integers(0, 11, (steps, 2, 3)) for steps in STEPS]
    return tokens, [generator.normal(size=(n, 2)).astype(np.float32) for n in STEPS]


@pytest.fixture
def two_threads() -> None:
    torch.set_num_threads(2)


def probs_of(predictor: NetworkPredictor, rows: list[int]) -> np.ndarray:
    """Every distribution over some real frames: [row step cell vocab]."""
    tokens, actions = clips()
    frames = np.stack([tokens[row][:4] for row in rows])
    acting = np.stack([actions[row][:4] for row in rows])
    predictor.start(frames[:, 0], acting)
    found = []
    for step in (1, 2, 3):
        guesses = predictor.predict(acting[:, step - 1])
        told = next(guesses, None)
        while told is not None:
            found.append(told[0])
            try:
                told = guesses.send(frames[:, step].reshape(len(rows), -1)[:, told[1]])
            except StopIteration:
                told = None
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize(
    ("kind", "arithmetic"), [*((kind, EXACT) for kind in KINDS), ("inner", "exact 2")]
)
def test_batches_and_threads_change_no_bit(kind: str, arithmetic: str, two_threads: None) -> None:
    model = network(kind)
    together = probs_of(NetworkPredictor(model, arithmetic), [0, 1, 2])
    torch.set_num_threads(1)
    for row in (0, 2):
        alone = probs_of(NetworkPredictor(model, arithmetic), [row])[0]
        assert alone.tobytes() == together[row].tobytes()
    floats = probs_of(NetworkPredictor(model, "float"), [0, 1, 2])
    near = {"exact 2": 2e-5, "exact 3": 2e-3}[arithmetic]
    assert np.abs(floats - together).max() < near  # it is the same model
    assert floats.std(axis=(0, 1)).max() > 1e-3  # which depends on what it reads


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_come_back_in_other_batches(kind: str) -> None:
    pytest.importorskip("constriction")
    model, (tokens, actions) = network(kind), clips()
    given = actions if model.conditioned else None
    codes, bits = encode(NetworkPredictor(model, EXACT), tokens, given)
    for code, promised in zip(codes, bits, strict=True):
        # The length, which the container tells, may save some bits.
        assert promised - 24 <= 8 * len(code) <= promised + 40
    for rows in ([0], [2, 1]):
        acting = given and [given[row] for row in rows]
        chosen, steps = [codes[row] for row in rows], [STEPS[row] for row in rows]
        back = decode(NetworkPredictor(model, EXACT), chosen, steps, (2, 3), acting)
        assert all(np.array_equal(tokens[r], own) for r, own in zip(rows, back, strict=True))


@pytest.mark.parametrize(
    ("kind", "arithmetic"),
    [
        *((kind, EXACT) for kind in KINDS if kind not in ("masked", "keyframes")),
        ("inner", "exact 2"),
    ],
)
def test_a_pass_over_what_is_there_gives_the_bits_of_decoding(kind: str, arithmetic: str) -> None:
    """Windows slide twice in six steps; compressing takes the pass, decompressing walks."""
    predictor, (tokens, actions) = NetworkPredictor(network(kind), arithmetic), clips()
    assert predictor.foresees
    assert not NetworkPredictor(network(kind), "float").foresees
    whole = np.stack(list(predictor.known(tokens[0], actions[0])))
    walked = NetworkPredictor(network(kind), arithmetic)
    walked.start(tokens[0][None, 0], actions[0][None])
    for step, probs in enumerate(whole, 1):
        guesses, real = walked.predict(actions[0][None, step - 1]), tokens[0][step].reshape(1, -1)
        told: Told | None = next(guesses)
        while told is not None:
            assert told[0][0].tobytes() == probs[told[1]].tobytes()
            told = sent(guesses, real[:, told[1]])


def test_codes_of_an_earlier_arithmetic_still_decode() -> None:
    """Golden: written by the release whose newest was "exact 2"."""
    pytest.importorskip("constriction")
    model, (tokens, actions) = network("raster"), clips()
    codes = [
        "fdeca780a0710d9a4b02dd289a82296b1a",
        "1a0bafd6819933235f89cb",
        "c36d4568a20aa1efd9efb4bbfd6bea83e9",
    ]
    predictor = NetworkPredictor(model, "exact 2")
    back = decode(predictor, [bytes.fromhex(code) for code in codes], STEPS, (2, 3), actions)
    assert all(np.array_equal(own, there) for own, there in zip(tokens, back, strict=True))
    assert [code.hex() for code in encode(predictor, tokens, actions)[0]] == codes
    assert [
        code.hex() for code in encode(NetworkPredictor(model, EXACT), tokens, actions)[0]
    ] != codes


def fingerprints() -> str:
    """Of every kind's distributions, exact and in floats; and of weights and tables."""
    found = [network_hash(network(kind)) for kind in KINDS]
    for arithmetic in (*CACHES, "float"):
        total = hashlib.sha256()
        for kind in KINDS:
            total.update(probs_of(NetworkPredictor(network(kind), arithmetic), [0, 1]).tobytes())
        found.append(total.hexdigest())
    return " ".join(found)


ELSEWHERE = {
    "default": {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "2"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "sse": {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in ELSEWHERE])
def test_other_instructions_change_no_bit(name: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_exact; "
    code += "print(test_exact.fingerprints())"
    there = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **ELSEWHERE[name]},
        capture_output=True,
        text=True,
        check=True,
    )
    *exact, floats = fingerprints().split()
    assert there.stdout.split()[:-1] == exact
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert there.stdout.split()[-1] != floats  # the comparison can fail


def test_sums_are_exact_in_any_order() -> None:
    """Against Python's integers; float32 in another order gives other bits."""
    torch.manual_seed(0)
    a, b = torch.randn(3, 4096) * 100, torch.randn(2, 4096)
    b[1, 7] = 1000.0
    order = torch.randperm(4096)
    out = numbers.products(a, numbers.rounded(b))
    assert torch.equal(out, numbers.products(a[:, order], numbers.rounded(b[:, order])))
    assert not torch.equal(a @ b.T, a[:, order] @ b[:, order].T)
    (left, left_scale), (right, right_scale) = numbers.rounded(a), numbers.rounded(b)
    assert left.abs().max() <= numbers.LIMIT
    total = sum(int(x) * int(y) for x, y in zip(left[0], right[1], strict=True))
    in_turn = np.float32(total) * left_scale[0, 0].numpy() * right_scale[1, 0].numpy()
    assert out[0, 1].item() == in_turn
    far = (out - a.double() @ b.double().T).abs() / (a.norm(dim=1)[:, None] * b.norm(dim=1))
    assert far.max() < 2e-6


def test_small_integers_have_no_order_either() -> None:
    """All keys and values at their limit: the largest sums that there are."""
    query, key = torch.full((1, 1, 64), 3.0), torch.full((1, 4000, 64), -3.0)
    value = torch.full((1, 4000, 64), 2.0)
    key[:, ::3] = 2.9  # which is what is attended to
    value[:, ::3, 1] = torch.arange(1334) / 1334
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    out = attention(query, key, value, None, False, 1.0, NARROW)
    assert torch.equal(
        out, attention(query, key[:, order], value[:, order], None, False, 1.0, NARROW)
    )
    keys, values, *_ = NARROW.kept(key, value)
    assert (keys.abs().max().item(), values.max().item()) == (512.0, 255.0)
    real = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    assert (out - real).abs().max() < 2e-2
    with pytest.raises(BadInput, match="8000 positions"):
        attention(query, key.repeat(1, 2, 1), value.repeat(1, 2, 1), None, False, 1.0, NARROW)


def test_the_order_of_channels_changes_no_score() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = 3 - torch.rand(2, 1, 200, 64, generator=generator) / 64  # odd, near the limit
    value = torch.rand(1, 200, 64, generator=generator)
    order = torch.randperm(64, generator=generator)
    out = attention(query, key, value, None, False, 1.0, NARROW)
    again = attention(query[..., order], key[..., order], value, None, False, 1.0, NARROW)
    assert torch.equal(out, again)


def tf32(x: torch.Tensor) -> torch.Tensor:
    """The 10 bits of mantissa that TF32 keeps."""
    return (x.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("low", [torch.Tensor.bfloat16, tf32])
def test_products_that_are_lowered_are_refused(
    monkeypatch: pytest.MonkeyPatch, low: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    own = torch.Tensor.__matmul__
    lowered = lambda a, b: own(low(a), low(b)).float()  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "__matmul__", lowered)
    with pytest.raises(BadInput, match="products of float32 are lowered"):
        NetworkPredictor(network("raster"), EXACT)


FUNCTIONS = {
    "exp": (lambda x: numbers.exp(-x.abs()), lambda x: (-x.abs()).exp(), 1e-5),
    "log": (lambda x: numbers.log(x.abs() + 1e-9), lambda x: (x.abs() + 1e-9).log(), 1e-14),
    "softmax": (numbers.softmax, lambda x: x.softmax(-1), 1e-5),
    "log_softmax": (numbers.log_softmax, lambda x: x.log_softmax(-1), 2e-5),
    "silu": (numbers.silu, F.silu, 1e-4),
    "gelu": (numbers.gelu, F.gelu, 1e-5),
    "gelu_tanh": (
        lambda x: numbers.gelu(x, "tanh"),
        lambda x: F.gelu(x, approximate="tanh"),
        1e-4,
    ),
    "layer_norm": (
        lambda x: numbers.layer_norm(x, None, None, 1e-5),
        lambda x: F.layer_norm(x, x.shape[-1:]),
        1e-4,
    ),
    "rms_norm": (
        lambda x: numbers.rms_norm(x, None, 1e-6),
        lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-6),
        1e-6,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_right(name: str) -> None:
    ours, theirs, error = FUNCTIONS[name]
    x = torch.linspace(-40, 40, 4000, dtype=torch.float64).view(40, 100)
    assert (ours(x) - theirs(x)).abs().max() <= error


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_a_transposed_tensor_is_read_as_its_copy(name: str) -> None:
    ours = FUNCTIONS[name][0]
    turned = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).T
    assert torch.equal(ours(turned), ours(turned.contiguous()))


def test_tables_are_those_of_every_machine() -> None:
    """Golden: a container that was written elsewhere relies on them."""
    made = [*tables.exp_tables(), *tables.normal_tables(), *tables.tanh_tables()]
    digest = hashlib.sha256(b"".join(table.numpy().tobytes() for table in made)).hexdigest()
    assert digest[:16] == "5b162913ec0b31cc"


@pytest.mark.parametrize("way", [WIDE, NARROW])
def test_hidden_positions_change_nothing(way: Way) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 5, 4).unbind(0)
    out = attention(query, key, value, None, True, 0.5, way)
    key[..., 3:, :], value[..., 3:, :] = 100.0, -100.0
    again = attention(query, key, value, None, True, 0.5, way)
    assert torch.equal(out[..., :3, :], again[..., :3, :])
    real = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.5)
    assert torch.allclose(again, real, atol=1e-2)


class Strange(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return {
            "cos": lambda: x.cos(),
            "cumsum": lambda: x.cumsum(-1),
            "std": lambda: x.std(-1),
            "alpha": lambda: torch.add(x, x, alpha=0.3),
            "long": lambda: x.new_zeros(1, 2**16) @ x.new_zeros(2**16, 1),
        }[self.way]()


@pytest.mark.parametrize("way", ["cos", "cumsum", "std", "alpha", "long"])
def test_what_is_not_known_to_be_exact_is_refused(way: str) -> None:
    model = Strange(way)
    with torch.inference_mode(), ExactArithmetic(model), pytest.raises(BadInput, match="exact"):
        model(torch.ones(2, 3, dtype=torch.float64))


def test_a_sum_of_floats_has_one_order() -> None:
    x = torch.tensor([[1.0, 1e16, -1e16], [1e16, -1e16, 1.0]], dtype=torch.float64)
    with torch.inference_mode(), ExactArithmetic(Strange("")):
        rows, kept, total = x.sum(-1), x.sum(-1, keepdim=True), x.sum()
        mean = x.mean(-1)
    assert rows.tolist() == [0.0, 1.0]
    assert mean.tolist() == [0.0, 1 / 3]
    assert kept.shape == (2, 1)
    assert total.item() == 0.0  # columns first: 1e16, 0, -1e16


def test_silu_in_place_is_silu() -> None:
    """As the networks of tokenizers call it without gradients."""
    x = torch.linspace(-9, 9, 77)
    with torch.inference_mode(), ExactArithmetic(torch.nn.SiLU()):
        expected, changed = F.silu(x), x.clone()
        F.silu(changed, inplace=True)
    torch.testing.assert_close(changed, expected, rtol=0, atol=0)
    assert not torch.equal(changed, x)
