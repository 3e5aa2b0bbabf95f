"""The ruler is for everybody: it needs neither Lightning nor Hydra nor a model of ours."""

import subprocess
import sys

import pytest

CODE = """
import sys
import worldmodel.evaluation.videos.command
print(*(name for name in sys.modules))
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.slow
def test_it_imports_no_framework(loaded):
    assert "worldmodel.evaluation.videos.ruler" in loaded
    assert not {"lightning", "pytorch_lightning", "hydra", "datasets", "wandb"} & loaded


@pytest.mark.slow
def test_it_imports_no_model(loaded):
    ours = {name for name in loaded if name.startswith(("tokenizer.", "worldmodel."))}
    models = ("networks", "quantizers", "module", "load", "dynamics", "decoding")
    assert not {name for name in ours if name.split(".")[1] in models}
