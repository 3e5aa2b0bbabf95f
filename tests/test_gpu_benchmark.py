"""The benchmark of a GPU at toy sizes on a CPU: it fails here first, not there."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import Row
from benchmarks.gpu.command import Report, main
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.profiling import kind_of


@pytest.mark.parametrize("part", ["limits", "decoding"])
def test_a_part_measures_rows_at_toy_size(part: str) -> None:
    rows = list(importlib.import_module(f"benchmarks.gpu.{PARTS[part].module}").rows(part, True))
    assert all(row.ours and row.name for row in rows if isinstance(row, Row))
    assert sum(isinstance(row, Row) for row in rows) >= 3


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="fails for want of a GPU")
def test_a_part_that_fails_is_a_row(tmp_path: Path) -> None:
    assert main(["--rows", "limits", "--out", str(tmp_path / "table.md")]) == 0
    table = (tmp_path / "table.md").read_text()
    assert table.count("failed: there is no GPU here; give --toy") == 1


def test_what_has_no_time_left_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "limits", "--seconds", "1", "--toy"]) == 0
    assert "limits: left out: 1 s are over" in capsys.readouterr().out
    assert main(["--rows", "nothing"]) == 2


def test_the_table_is_on_disk_after_every_row(tmp_path: Path) -> None:
    report = Report(tmp_path / "out" / "table.md")
    report.add("## today")
    for name in ("first", "second"):
        report.add(Row(name, "1", "2", 0.5))
        assert f"| {name} | 1 | 2 | 0.500 |" in (tmp_path / "out" / "table.md").read_text()
    report.add("## today")
    assert (tmp_path / "out" / "table.md").read_text().count("## today") == 1


def test_kernels_are_told_apart_by_their_names() -> None:
    names = {
        "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT": "matmul",
        "void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel": "attention",
        "triton_red_fused__to_copy_native_layer_norm_3": "fused",
        "void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>": "optimizer",
    }
    assert {name: kind_of(name) for name in names} == names


@pytest.mark.slow
def test_every_module_measures_something(tmp_path: Path) -> None:
    names = ["mfu_124M_bf16_stream", "decoding_compiled", "peers", "tokenizers", "kinds"]
    out = tmp_path / "table.md"
    command = [sys.executable, "-m", "benchmarks", "gpu", "--toy", "--rows", ",".join(names)]
    command += ["--seconds", "1200", "--out", str(out)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    assert "failed" not in out.read_text()
    assert "ended after" not in out.read_text()
    assert out.read_text().count("MFU") == 1
