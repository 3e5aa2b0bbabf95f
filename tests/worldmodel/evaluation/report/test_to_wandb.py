"""Cards join the run that trained the checkpoint, in wandb's own offline files."""

import json

import pytest
from offline_wandb import ended, history, records, run_record
from PIL import Image

from worldmodel.evaluation.report.to_wandb import send

FOUND = {
    "cards": {
        "teacher_forced": {
            "version": "1",
            "scores": {"world model": {"bits": {"value": 2.5, "low": 2.0, "high": 3.0}}},
            "floors": [],
        },
        "rollout": {"version": "1", "skipped": "no pixels"},
    }
}


@pytest.mark.timeout(120)
def test_scores_tables_and_pictures_are_sent(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "eval"
    out.mkdir()
    Image.new("RGB", (8, 8)).save(out / "rollouts.png")
    send(FOUND, {"run": {"run_id": "abc123"}, "config": {"seed": 3}}, tmp_path, out)
    file = ended(tmp_path)
    record = run_record(file)
    assert record.run_id == "abc123"
    assert record.job_type == "evaluation"
    (row,) = (r for r in history(file) if any(k.startswith("eval/") for k in r))
    assert any(key.startswith("eval/teacher_forced") for key in row)
    assert any(key.startswith("eval/rollouts_strip") for key in row)
    summary = {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for r in records(file)
        if r.WhichOneof("record_type") == "summary"
        for item in r.summary.update
    }
    assert summary["eval/teacher_forced/world model/bits"] == 2.5
