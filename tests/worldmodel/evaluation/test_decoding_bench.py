"""The decoding bench: what its figures mean, and the command on a trained run."""

import json

import pytest
import torch
from tiny_gpt import make_clip, make_model

from training.errors import BadInput
from worldmodel.decoding import Sampling
from worldmodel.decoding.rollout import METHODS, open_decoder
from worldmodel.evaluation.decoding_bench import (
    Measured,
    bench,
    cost,
    measure,
    named,
    table,
    variants,
)
from worldmodel.windows import TokenClip


def measured(method: str, **options: object) -> Measured:
    clip = TokenClip(*make_clip(6, batch=1))
    model, name = make_model(), named(method, options)
    decoder = open_decoder(model, Sampling(), method, **options)
    return measure(model, clip, decoder, name, repeats=1, bandwidth=1e9)


def test_exact_decoders_score_alike_and_approximate_ones_pay() -> None:
    raster, speculative, diagonal = (
        measured(method) for method in ("raster", "speculative", "diagonal")
    )
    assert cost(raster, raster) == f"{raster.nats.mean():.4f} nats"
    assert cost(speculative, raster) == "exact"
    assert cost(diagonal, raster).endswith("%")
    assert raster.acceptance is None
    assert 0 <= speculative.acceptance <= 1
    assert raster.nats.shape == (3, 6)  # 3 frames after a context of 3


def test_memory_share_is_bytes_over_time_over_bandwidth() -> None:
    one = measured("raster", window="roll")
    model = make_model()
    head_and_blocks = list(model.blocks.parameters()) + list(model.head.parameters())
    weights = 4 * sum(p.numel() for p in head_and_blocks)
    cache = 2 * 4 * model.config.num_layers * model.num_positions * model.config.dim
    expected = (weights + cache) * 6 / one.seconds_per_frame / 1e9
    assert one.memory_share == pytest.approx(expected)
    assert one.name == "raster, window=roll"


def test_the_table_holds_rates_and_costs() -> None:
    nats = torch.full((2, 6), 2.0)
    rows = [Measured("a", 0.5, 0.25, nats, None), Measured("b", 0.1, None, nats * 1.1, 0.5)]
    assert table(rows, 6).splitlines()[2:] == [
        "| a | 2 | 12 | 25% | 2.0000 nats |  |",
        "| b | 10 | 60 |  | +10.00% | 50% |",
    ]


def test_variants_are_the_methods_of_the_kind() -> None:
    model = make_model()
    wanted = {"raster": [{}, {"window": "roll"}]}
    found = variants(model, wanted)
    assert found[:2] == [("raster", {}), ("raster", {"window": "roll"})]
    assert {name for name, _ in found} == {
        n for n, m in METHODS.items() if isinstance(model, m.kind)
    }
    with pytest.raises(BadInput, match=r"methods.rastr: no such method; known: raster"):
        variants(model, {"rastr": [{}]})


@pytest.mark.slow
def test_the_command_writes_its_table_and_eval_decodes_as_told(composed, fit, tmp_path, capsys):
    from hydra import compose, initialize_config_dir

    from training.help import CONFIGS
    from worldmodel.evaluation.judge import judge

    cut = [
        "+debug=fast",
        "callbacks.media=null",
        "trainer.max_steps=2",
        "data.source.carracing.seconds=5.0",
    ]
    _, run, _ = fit(composed("gpt_tiny", *cut))
    page = tmp_path / "results.md"

    def configured(name: str, *overrides: str):
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return compose(name, overrides=[f"ckpt={run.folder}", *overrides])

    few = ("num_frames=2", "repeats=1", f"results={page}")
    bench(configured("commands/decoding_bench", *few))
    assert not page.exists()
    bench(configured("commands/decoding_bench", *few, "write=true"))
    assert "| speculative, draft=jacobi, num_draft=16 |" in page.read_text()
    assert page.read_text().strip() in capsys.readouterr().out
    with pytest.raises(BadInput, match="num_frames=1"):
        bench(configured("commands/decoding_bench", "num_frames=1"))

    pixels = []
    card = ("card=rollout", "cards.rollout.version=few")
    few = (*card, "cards.rollout.num_clips=1", "cards.rollout.horizon_s=0.2")
    for decoding in ([], ["decoding.method=speculative"], ["decoding.method=diagonal"]):
        judge(configured("eval", *few, *decoding))
        found = json.loads((run.folder / "eval/metrics.json").read_text())
        pixels.append(found["cards"]["rollout"]["scores"]["autoregressive"])
    assert pixels[0] == pixels[1] != pixels[2]
    with pytest.raises(BadInput, match="can be decoded by: raster, speculative, diagonal"):
        judge(configured("eval", "decoding.method=maskgit"))
