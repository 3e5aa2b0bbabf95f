"""Files from strangers that want to run something: none does, each ends as bad input must.

Every payload is first shown to work on Python's own unpickler. A run of anything leaves a canary
behind; afterwards there is none, the exit code was 2, and one line said what was wrong.
"""

import importlib
import io
import json
import resource
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from attacks import malicious
from attacks.malicious import CALLS, CONTAINERS, FORMS, LYING, npy, npy_header, reduced, whole
from commavq_files import packed
from published_files import cosmos_files, genie_files, gpt2m_files, parity, vavim_files

from drives.tokens.store import TokenSpec
from drives.tokens.writer import TokenStoreWriter
from tokenizer.published import ADAPTERS as TOKENIZERS
from training.checkpoints.folder import read_state
from training.cli import bad_input_fails
from training.disk.hashing import file_sha256
from worldmodel.published import ADAPTERS as MODELS
from worldmodel.published import convert

pytestmark = pytest.mark.attack
MB = 2**20


@pytest.fixture
def canary(tmp_path):
    return str(tmp_path / "canary")


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """`refused(module, *arguments)` or `refused(call)`: it ends with exit 2 and one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DASHCAST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DASHCAST_CACHE", str(tmp_path / "cache"))

    def check(what, *arguments) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [str(what), *map(str, arguments)])
        with pytest.raises(SystemExit) as end, bad_input_fails():
            importlib.import_module(what).main() if isinstance(what, str) else what()
        shown = capsys.readouterr().err
        assert end.value.code == 2, shown
        assert shown.startswith("error: "), shown
        assert shown.count("\n") == 1, shown
        assert len(shown) < 2000
        assert not (tmp_path / "canary").exists()
        assert not (tmp_path.parent / "canary").exists()
        return shown

    return check


# Pickles.


@pytest.mark.parametrize("name", CALLS)
def test_the_payloads_work_elsewhere(name, canary):
    payload = whole(reduced(CALLS[name](canary)))
    code = f"import pickle, time; x = pickle.loads({payload!r}); time.sleep(0.1)"
    subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert Path(canary).exists()


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_work_elsewhere(form, canary):
    payload = whole(FORMS[form](CALLS["os.mkdir"](canary)))
    code = f"import pickle; pickle.loads({payload!r})"
    subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert Path(canary).exists()


def model_arguments(name: str, file: Path) -> list[str]:
    """The command line on which a file is a published world model's weights."""
    (file.parent / "config.json").write_text("{}")
    beside = [file.parent / "config.json"] if name != "vam_mupgpt2" else []
    return [f"model={name}", f"ckpt={','.join(map(str, [file, *beside]))}", "out=out"]


def tokenizer_arguments(name: str, file: Path) -> list[str]:
    second = [file.with_name("second.bin")] if name == "commavq" else []
    for other in second:
        shutil.copyfile(file, other)
    return [f"tokenizer={name}", f"ckpt={','.join(map(str, [file, *second]))}", "out=out"]


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize("call", CALLS)
def test_no_call_is_made(call, container, canary, refused, tmp_path):
    file = tmp_path / "weights.pt"
    CONTAINERS[container](file, whole(reduced(CALLS[call](canary))))
    refused("worldmodel.convert", *model_arguments("vam_mupgpt2", file))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_a_call_is_made(form, container, canary, refused, tmp_path):
    file = tmp_path / "weights.pt"
    CONTAINERS[container](file, whole(FORMS[form](CALLS["os.mkdir"](canary))))
    refused("worldmodel.convert", *model_arguments("vam_mupgpt2", file))


def test_a_name_that_begins_as_a_harmless_one_leads_nowhere(canary, refused, tmp_path):
    for container, write in CONTAINERS.items():
        file = tmp_path / f"{container}.pt"
        write(file, whole(malicious.behind_a_name(CALLS["os.mkdir"](canary))))
        refused("worldmodel.convert", *model_arguments("vam_mupgpt2", file))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", MODELS)
def test_every_adapter_of_world_models_refuses(name, container, canary, refused, tmp_path):
    file = tmp_path / "weights.bin"
    CONTAINERS[container](file, whole(malicious.in_dict(CALLS["os.mkdir"](canary))))
    refused("worldmodel.convert", *model_arguments(name, file))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_adapter_of_tokenizers_refuses(name, container, canary, refused, tmp_path):
    file = tmp_path / "weights.ckpt"
    CONTAINERS[container](file, whole(malicious.in_dict(CALLS["os.mkdir"](canary))))
    refused("tokenizer.convert", *tokenizer_arguments(name, file))
    assert "error" in refused("tokenizer.encode", *tokenizer_arguments(name, file))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["cosmos_dv", "llamagen"])
def test_archives_with_code_are_read_for_their_tensors_alone(name, form, canary, refused, tmp_path):
    """The pickle of a TorchScript archive, beside code that its loading would run."""
    files = [tmp_path / "encoder.jit", tmp_path / "decoder.jit"]
    for file in files:
        made = io.BytesIO()
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), made)
        payload = whole(FORMS[form](CALLS["os.mkdir"](canary)))
        malicious.rewrite(made, file, {"data.pkl": payload})
    arguments = [f"tokenizer={name}", f"ckpt={files[0]},{files[1]}", "out=out"]
    refused("tokenizer.convert", *arguments)


@pytest.mark.parametrize("name", ["constants.pkl", "attributes.pkl", "code/__torch__.py"])
def test_other_parts_of_an_archive_are_not_read(name, canary, refused, tmp_path):
    made = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), made)
    payload = whole(reduced(CALLS["os.mkdir"](canary)))
    malicious.rewrite(made, tmp_path / "both.jit", {name: payload})
    refused("tokenizer.convert", "tokenizer=cosmos_dv", f"ckpt={tmp_path}/both.jit", "out=out")


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_state_of_a_checkpoint_is_not_trusted(container, canary, refused, tmp_path):
    CONTAINERS[container](tmp_path / "state.pt", whole(reduced(CALLS["os.mkdir"](canary))))
    refused(lambda: read_state(tmp_path))


@pytest.mark.parametrize("container", CONTAINERS)
def test_weights_of_frozen_networks_are_not_trusted(container, canary, refused, tmp_path):
    from tokenizer.compare.fid import load_inception
    from tokenizer.losses.lpips import load_lpips

    file = tmp_path / "weights.pth"
    CONTAINERS[container](file, whole(malicious.in_dict(CALLS["os.mkdir"](canary))))
    refused(lambda: load_lpips("alex", file))
    refused(lambda: load_inception(file))


# Arrays and archives of commaVQ.


def commavq_files_of(folder: Path, call) -> dict[str, Path]:
    """Places where an array of objects may lie."""
    good = packed(np.zeros((30, 8, 16), np.int16))
    bad, places = npy(call), {}
    places["tokens.npy"] = folder / "tokens.npy"
    places["tokens.npy"].write_bytes(bad)
    for ending, name in ((".tar", "token.npy"), (".tar.gz", "token.npy"), (".tgz", "pose.npy")):
        parts = {"json": b"{}", "token.npy": good, name: bad}
        members = [(tarfile.TarInfo(f"a.{key}"), content) for key, content in parts.items()]
        places[f"{name} in {ending}"] = folder / f"data{ending}"
        malicious.tar_of(places[f"{name} in {ending}"], members)
    for name in ("token.npy", "pose.npy"):
        pairs = folder / f"pairs of {name}"
        pairs.mkdir()
        for key, content in {"a.token.npy": good, f"a.{name}": bad}.items():
            (pairs / key).write_bytes(content)
        places[f"{name} beside"] = pairs
    return places


def test_arrays_of_objects_are_not_unpickled(canary, refused, tmp_path):
    places = commavq_files_of(tmp_path, CALLS["os.mkdir"](canary))
    assert len(places) == 6
    for place in places.values():
        refused("drives.importers.__main__", "commavq", place, "store")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': __import__('os').mkdir('canary'), 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (2**60, 8, 16), }",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (1152921504606846976, 8, 16), }",
        "{'descr': '<i2', 'fortran_order': False, 'shape': (-1, 8, 16), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1200, 8, 16), }",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1200, 8, 16), }",
        "(" * 5000,
        "{'descr': '<i2', 'fortran_order': False, 'shape': 4" + " " * 20_000,
        '\'"""',
        "",
    ],
)
@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x09\x00"])
def test_headers_of_arrays_are_no_programs(header, version, refused, tmp_path):
    (tmp_path / "tokens.npy").write_bytes(npy_header(header, version))
    refused("drives.importers.__main__", "commavq", tmp_path / "tokens.npy", "store")


def link(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize(
    "member",
    [
        link("a.token.npy", tarfile.SYMTYPE, "/etc/passwd"),
        link("a.token.npy", tarfile.SYMTYPE, "../../canary"),
        link("a.token.npy", tarfile.LNKTYPE, "/etc/passwd"),
        link("a.token.npy", tarfile.CHRTYPE),
        link("a.token.npy", tarfile.BLKTYPE),
        link("a.token.npy", tarfile.FIFOTYPE),
        link("a.token.npy", tarfile.DIRTYPE),
    ],
    ids=lambda member: f"{member.type.decode()}-{member.linkname}",
)
def test_members_that_are_no_files_are_refused(member, refused, tmp_path):
    for ending in (".tar", ".tar.gz"):
        malicious.tar_of(
            tmp_path / f"data{ending}", [(tarfile.TarInfo("a.json"), b"{}"), (member, b"")]
        )
        refused("drives.importers.__main__", "commavq", tmp_path / f"data{ending}", "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "name", ["../canary", "/tmp/canary", "../../canary", "a/../../canary", "..", "\n", "a\x1b[2J"]
)
def test_names_in_an_archive_lead_nowhere(name, tmp_path, monkeypatch, capsys):
    """Taken under a name of our own, or refused: nothing is written elsewhere."""
    monkeypatch.chdir(tmp_path)
    inside = tmp_path / "in"
    inside.mkdir()
    good = packed(np.zeros((1200, 8, 16), np.int16))
    malicious.tar_of(inside / "data.tar", [(tarfile.TarInfo(f"{name}.token.npy"), good)])
    monkeypatch.setattr(sys, "argv", ["importers", "commavq", str(inside / "data.tar"), "in/store"])
    code = 0
    try:
        importlib.import_module("drives.importers.__main__").main()
    except SystemExit as end:
        code = end.code
    shown = capsys.readouterr().err
    assert (code, shown.startswith("error: ")) in ((0, False), (2, True))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert not Path("/tmp/canary").exists()


# Bombs.


@pytest.fixture
def frugal():
    """The process may not grow by more than a quarter of what the bomb holds."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024


@pytest.mark.parametrize("name", ["data.pkl", "data/0", "byteorder", "version"])
def test_compressed_archives_are_not_blown_up(name, refused, tmp_path, frugal):
    made, bomb = io.BytesIO(), bytes(1024 * MB)
    torch.save({"a": torch.zeros(4)}, made)
    malicious.rewrite(made, tmp_path / "weights.pt", {name: bomb}, compress=True)
    del bomb
    for module, arguments in (
        ("worldmodel.convert", model_arguments("vam_mupgpt2", tmp_path / "weights.pt")),
        ("tokenizer.convert", tokenizer_arguments("taming", tmp_path / "weights.pt")),
    ):
        assert "compressed" in refused(module, *arguments)


def test_compressed_torchscript_is_not_blown_up(refused, tmp_path, frugal):
    made, bomb = io.BytesIO(), bytes(1024 * MB)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), made)
    malicious.rewrite(made, tmp_path / "both.jit", {"data/0": bomb}, compress=True)
    del bomb
    for name in ("cosmos_dv", "llamagen"):
        said = refused(
            "tokenizer.convert", f"tokenizer={name}", f"ckpt={tmp_path}/both.jit", "out=o"
        )
        assert "compressed" in said


def test_a_tar_is_not_blown_up(refused, tmp_path, frugal):
    member = tarfile.TarInfo("a.token.npy")
    member.size = 1024 * MB
    archive = tmp_path / "data.tar.gz"
    with (
        tarfile.open(archive, "w:gz", compresslevel=1) as tar,
        open("/dev/zero", "rb") as zeros,
    ):
        tar.addfile(member, zeros)
    refused("drives.importers.__main__", "commavq", archive, "store")


# JSON and YAML.

JSON = {
    "nested lists": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
    "a huge number": b'{"n_head": ' + b"9" * 5000 + b', "n_heads": 4}',
    "a number beyond 64 bits": b'{"n_head": 9999999999999999999999, "n_heads": 1e999}',
    "not UTF-8": b'{"n_head": "\xff\xfe"}',
    "NaN": b'{"n_head": NaN}',
    "a string": b'"n_head"',
    "a list": b"[[]]",
    "Python": b"__import__('os').mkdir('canary')",
    "nothing": b"",
}


@pytest.mark.parametrize("name", ["commavq_gpt", "cosmos_ar", "genie"])
@pytest.mark.parametrize("kind", JSON)
def test_settings_beside_weights_are_data(kind, name, shared, refused, tmp_path):
    make = {
        "commavq_gpt": lambda: gpt2m_files(tmp_path),
        "cosmos_ar": lambda: cosmos_files(shared, tmp_path),
        "genie": lambda: genie_files(shared, tmp_path),
    }
    files = make[name]()
    files[1].write_bytes(JSON[kind])
    refused("worldmodel.convert", f"model={name}", f"ckpt={files[0]},{files[1]}", "out=out")


@pytest.mark.parametrize("kind", JSON)
def test_manifests_are_data(kind, refused, tmp_path):
    """Of a checkpoint, of a token store, and of a drive."""
    for folder in ("ckpt", "store", "drives/a"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "store/a.arrow").write_bytes(b"")
    (tmp_path / "drives/a/actions.csv").write_text("steering\n0\n")
    for file in ("ckpt/manifest.json", "store/manifest.json", "drives/a/drive.json"):
        (tmp_path / file).write_bytes(JSON[kind])
    refused("eval", f"ckpt={tmp_path}/ckpt")
    refused("tokenizer.decode", f"store={tmp_path}/store", "drive=a", "out=a.mp4")
    refused("tokenizer.encode", f"data.root={tmp_path}/drives", "out=out")


YAML = {
    "apply": "!!python/object/apply:os.mkdir ['canary']",
    "new": "!!python/object/new:os.mkdir ['canary']",
    "name": "transformer.wie.weight: [1, !!python/name:os.system]",
    "module": "!!python/module:os",
    "object": "!!python/object:subprocess.Popen {args: [touch, canary]}",
    "aliases": "a: &a [x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 8)}]\n" for i in range(12)
    ),
    "nested": "[" * 20_000,
    "a string": 'transformer.wie.weight: [1, \'__import__("os").mkdir("canary")\']',
    "zero": "transformer.wie.weight: [1, 0]",
}


@pytest.mark.parametrize("kind", YAML)
def test_base_shapes_are_data(kind, shared, refused, tmp_path):
    files = vavim_files(shared, tmp_path)
    files[1].write_text(YAML[kind])
    arguments = ["model=vam_mupgpt2", f"ckpt={files[0]},{files[1]}", f"out={tmp_path}/out"]
    refused("worldmodel.convert", *arguments)


# Safetensors.


@pytest.mark.parametrize("kind", LYING)
def test_headers_of_safetensors_that_lie(kind, shared, refused, tmp_path):
    files = genie_files(shared, tmp_path)
    files[0].write_bytes(LYING[kind])
    refused("worldmodel.convert", "model=genie", f"ckpt={files[0]},{files[1]}", "out=out")
    arguments = tokenizer_arguments("magvit2", files[0])
    refused("tokenizer.convert", *arguments)


# What a manifest names.


@pytest.fixture(scope="module")
def checkpoint(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    convert("genie", genie_files(shared, folder), folder / "out")
    return folder / "out"


@pytest.mark.parametrize(
    "source",
    [
        {"_target_": "os.mkdir", "path": "canary"},
        {"_target_": "builtins.exec", "_args_": ["open('canary', 'w')"]},
        {"_target_": "drives.sources.TokenSource", "root": "store", "format": "x"},
        {"_target_": "drives.sources.DriveSource", "carracing": {"_target_": "os.mkdir"}},
        {"_target_": ["os.mkdir"]},
        "os.mkdir",
    ],
    ids=str,
)
def test_a_checkpoint_names_no_function(source, checkpoint, refused, tmp_path):
    from training.disk.records import read_record, write_record

    shutil.copytree(checkpoint, tmp_path / "ckpt")
    file = tmp_path / "ckpt/manifest.json"
    values = read_record(file, may_lack_seal=lambda values: True)
    write_record(file, {**values, "config": {"data": {"source": source}}})
    refused("eval", f"ckpt={tmp_path}/ckpt")


@pytest.mark.parametrize("path", ["../secret.arrow", "/etc/passwd", "a/../../secret.arrow", "."])
def test_a_store_names_no_file_outside_of_it(path, refused, tmp_path):
    from training.disk.records import read_record, write_record

    spec = TokenSpec((1, 2, 2), 8, 10, 1, (32, 32), "x")
    writer = TokenStoreWriter(tmp_path / "store", spec, ())
    writer.write("a", "test", np.zeros((3, 2, 2), int), np.zeros((3, 0), np.float32))
    shutil.copyfile(tmp_path / "store/a.arrow", tmp_path / "secret.arrow")
    file = tmp_path / "store/manifest.json"
    values = read_record(file, may_lack_seal=lambda values: True)
    values["drives"]["a"] |= {"file": path}
    target = tmp_path / "store" / path
    if target.is_file():
        values["drives"]["a"]["sha256"] = file_sha256(target)
    write_record(file, values)
    refused("tokenizer.decode", f"store={tmp_path}/store", "drive=a", "out=a.mp4")


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret"])
def test_a_checkpoint_names_no_file_outside_of_it(path, checkpoint, refused, tmp_path):
    from training.disk.records import read_record, write_record

    (tmp_path / "secret").write_bytes(b"secret")
    shutil.copytree(checkpoint, tmp_path / "ckpt")
    file = tmp_path / "ckpt/manifest.json"
    values = read_record(file, may_lack_seal=lambda values: True)
    values["files"][path] = file_sha256(tmp_path / "secret")
    write_record(file, values)
    refused("eval", f"ckpt={tmp_path}/ckpt")


def test_parity_is_what_honest_files_give(shared, tmp_path):
    """The makers of files are honest where nothing is changed: such files open."""
    assert parity(shared, "genie_stmaskgit", "a")
    for name, files in (("genie", genie_files(shared, tmp_path)),):
        convert(name, files, tmp_path / "out")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["kind"] == "worldmodel"
