"""Whatever a stranger writes into a manifest, eval.py ends in one line, before anything is made."""

import json
import shutil
from pathlib import Path

import pytest

from tokenizer.load import PRETRAINED, load_tokenizer
from training.checkpoints.folder import read_manifest
from training.disk.records import SEAL, sealed
from training.errors import BadInput
from worldmodel.evaluation.evidence import data_source, trained_on
from worldmodel.load import load_world_model

ROOT = Path(__file__).parent.parent.parent
WORLD_MODEL = ROOT / "tests/training/old_checkpoints/schema-1"
GONE = object()
NAN = float("nan")
HEAD = [
    ("schema_version", 2.0),
    ("schema_version", True),
    ("schema_version", 4),
    ("kind", GONE),
    ("kind", ["worldmodel"]),
    ("kind", "teapot"),
    ("files", GONE),
    ("files", {}),
    ("files", []),
    ("files", {"weights.safetensors": None}),
    ("files.weights/safetensors", "0" * 64),
    ("step", "2"),
    ("run", []),
    ("run", "v1"),
    ("config", 3),
    ("config.data", 3),
    ("config.data._target_", "os.system"),
    ("config.data._target_", ["os.system"]),
    ("config.data.carracing", 3),
    ("config.data.carracing.fps", 0),
    ("config.data.colour", "red"),
    ("network", GONE),
    ("network", []),
    ("network", {}),
    ("network.name", "teapot"),
    ("network.name", ["gpt"]),
    ("network.name", GONE),
    ("network.colour", "red"),
    ("published", 3),
]
WORLD = [
    ("network.dim", "12"),
    ("network.dim", 12.5),
    ("network.dim", 1_000_000),
    ("network.dim", -12),
    ("network.num_heads", 0),
    ("network.num_heads", 5),
    ("network.num_layers", True),
    ("network.mlp_ratio", -4.0),
    ("network.rope_theta", "x"),
    ("network.output_scale", NAN),
    ("network.output_scale", "3"),
    ("network.output_scale", -1.0),
    ("network.positions", "none"),
    ("network.layout", []),
    ("network.layout.actions", 3),
    ("network.layout.num_bins", 1),
    ("network.layout.colour", 1),
    ("spec", GONE),
    ("spec", []),
    ("spec.fps", GONE),
    ("spec.fps", "10"),
    ("spec.fps", -10.0),
    ("spec.fps", 0),
    ("spec.grid", [1, 8]),
    ("spec.grid", [1, 4, 16, 2]),
    ("spec.grid", [1, 0, 8]),
    ("spec.grid", 64),
    ("spec.vocab_size", 0),
    ("spec.vocab_size", 2000),
    ("spec.image_size", [64]),
    ("spec.image_size", [0, 0]),
    ("spec.bit_order", "middle"),
    ("spec.factors", ["8"]),
    ("spec.tokenizer", None),
    ("spec.preprocessing", {"window": "all"}),
    ("action_names", GONE),
    ("action_names", "steering"),
    ("action_names", [1, 2, 3, 4, 5]),
    ("action_names", ["steering"]),
    ("text", 3),
    ("text", {"name": 3}),
    ("text", {"name": "hashed_words", "num_tokens": 1, "key": "x", "width": "y"}),
    ("text", {"name": "teapot", "num_tokens": 1, "key": "x"}),
    ("config.loader", 3),
    ("config.loader.encode", 3),
    ("config.loader.encode.every", 0),
    ("config.loader.encode.every", "1"),
    ("config.loader.encode.colour", "red"),
    ("config.loader.tokenizer", 3),
    ("config.loader.tokenizer", "no/such/tokenizer"),
]
TOKENIZER = [
    ("network.quantizer.levels", []),
    ("network.quantizer.levels", [8, 1]),
    ("network.quantizer.levels", [8, "5"]),
    ("network.quantizer.levels", [8, 5, 5, 6, 3]),
    ("network.quantizer", GONE),
    ("network.patch", 0),
    ("network.patch", -4),
    ("network.patch", 3),
    ("network.channels", []),
    ("network.channels", [64, 0]),
    ("network.channels", [64, 1_000_000]),
    ("network.image_size", [64]),
    ("network.image_size", [0, 0]),
    ("network.image_size", [-64, 64]),
    ("network.attention", "yes"),
    ("network.num_res_blocks", -1),
    ("preprocessing", 3),
    ("preprocessing", {"colour": 1}),
    ("preprocessing", {"std": [0.0, 1.0, 1.0]}),
    ("preprocessing", {"window": [1]}),
    ("preprocessing", {"value_range": [1.0]}),
]
OWN = [edit for edit in HEAD if edit[0].split(".")[0] in ("kind", "network", "published")]
CASES = [("worldmodel", *edit) for edit in HEAD + WORLD] + [
    ("tokenizer", *edit) for edit in OWN + TOKENIZER
]


def opened(path):
    """What eval.py asks of a checkpoint before it opens any data."""
    manifest = read_manifest(path)
    if manifest.get("kind") == "tokenizer":
        load_tokenizer(path)
    else:
        load_world_model(path).texts()
        tokenizer = trained_on(manifest, path).tokenizer
        load_tokenizer(tokenizer or "")
    data_source(manifest, {}, path)


@pytest.fixture(scope="module", params=["worldmodel", "tokenizer"])
def strange(request, tmp_path_factory):
    """`strange(path, value)` ends as eval.py would on a checkpoint so edited."""
    folder = tmp_path_factory.mktemp(request.param)
    honest = WORLD_MODEL if request.param == "worldmodel" else PRETRAINED / "carracing"
    shutil.copytree(honest, folder / "checkpoint")
    file = folder / "checkpoint/manifest.json"
    content = file.read_text()

    def call(path, value):
        manifest = json.loads(content)
        has_seal = manifest.pop(SEAL, None) is not None
        *parents, last = (part.replace("/", ".") for part in path.split("."))
        entry = manifest
        for name in parents:
            entry = entry[name]
        if value is GONE:
            del entry[last]
        else:
            entry[last] = value
        # Whoever edits a manifest on purpose seals it too.
        file.write_bytes(sealed(manifest, path) if has_seal else json.dumps(manifest).encode())
        opened(folder / "checkpoint")

    call.folder = folder
    return call


def test_every_edit_ends_in_one_line(strange):
    mine = [case[1:] for case in CASES if case[0] == strange.folder.name.rstrip("0123456789")]
    passed = []
    for path, value in mine:
        try:
            strange(path, value)
            passed.append((path, value, "accepted"))
        except BadInput as error:
            named = str(strange.folder) in str(error) or str(value) in str(error)
            if not named or len(str(error).splitlines()) > 1:
                passed.append((path, value, str(error)))
        except Exception as error:
            passed.append((path, value, repr(error)[:300]))
    assert not passed, "\n".join(map(str, passed))
    assert sorted(p.name for p in strange.folder.iterdir()) == ["checkpoint"]
