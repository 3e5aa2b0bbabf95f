"""Makes files that want to run something when they are opened: pickles, archives, headers."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Call = tuple[str, str, tuple]  # module, name, arguments

# What a pickle may ask for; every one of them makes the canary.
CALLS: dict[str, Callable[[str], Call]] = {
    "os.mkdir": lambda canary: ("os", "mkdir", (canary,)),
    "posix.mkdir": lambda canary: ("posix", "mkdir", (canary,)),
    "os.system": lambda canary: ("os", "system", (f"touch {canary}",)),
    "os.popen": lambda canary: ("os", "popen", (f"touch {canary}",)),
    "subprocess": lambda canary: ("subprocess", "check_output", (["touch", canary],)),
    "eval": lambda canary: ("builtins", "eval", (f"__import__('os').mkdir({canary!r})",)),
    "exec": lambda canary: ("builtins", "exec", (f"open({canary!r}, 'w')",)),
    "python2 eval": lambda canary: ("__builtin__", "eval", (f"open({canary!r}, 'w')",)),
    "open": lambda canary: ("io", "open", (canary, "w")),
    "runpy": lambda canary: ("runpy", "_run_code", (f"open({canary!r}, 'w')", {})),
    "profile": lambda canary: ("profile", "run", (f"open({canary!r}, 'w')",)),
    "timeit": lambda canary: ("timeit", "main", (["-n1", "-r1", f"open({canary!r}, 'w')"],)),
    "shutil": lambda canary: ("shutil", "copyfile", ("/dev/null", canary)),
    "logging": lambda canary: ("logging", "FileHandler", (canary,)),
    "torch's own": lambda canary: ("torch.utils.collect_env", "run", (f"touch {canary}",)),
    "torch.save": lambda canary: ("torch", "save", ([1], canary)),
    "numpy.save": lambda canary: ("numpy", "savetxt", (canary, [1])),
}


def items(values: tuple) -> bytes:
    """The opcodes that push some values, one after the other."""
    return b"".join(pickle.dumps(value, 2)[2:-1] for value in values)


def reduced(call: Call) -> bytes:
    module, name, arguments = call
    return f"c{module}\n{name}\n".encode() + b"(" + items(arguments) + b"tR"


def instance(call: Call) -> bytes:
    module, name, arguments = call
    return b"(" + items(arguments) + f"i{module}\n{name}\n".encode()


def by_object(call: Call) -> bytes:
    module, name, arguments = call
    return f"(c{module}\n{name}\n".encode() + items(arguments) + b"o"


def by_stack(call: Call) -> bytes:
    """The name as two strings, as protocol 4 has it."""
    module, name, arguments = call
    return items((module, name)) + b"\x93(" + items(arguments) + b"tR"


def in_dict(call: Call) -> bytes:
    return b"}" + items(("state_dict",)) + reduced(call) + b"s"


def in_ordered_dict(call: Call) -> bytes:
    return b"ccollections\nOrderedDict\n)R" + items(("a",)) + reduced(call) + b"s"


def in_settings(call: Call) -> bytes:
    """Inside of OmegaConf's container, where its content is."""
    container = b"comegaconf.dictconfig\nDictConfig\n)\x81}" + items(("_content",))
    container += reduced(call) + b"sb"
    return b"}" + items(("hyper_parameters",)) + b"}" + items(("network",)) + container + b"ss"


def in_callback(call: Call) -> bytes:
    """In the state of an object that is left aside, as Lightning's callbacks are."""
    kept = b"cargparse\nNamespace\n)\x81" + reduced(call) + b"b"
    return b"}" + items(("callbacks",)) + kept + b"s"


def as_argument(call: Call) -> bytes:
    """As an argument of a harmless class."""
    return b"cargparse\nNamespace\n(" + reduced(call) + b"tR"


def behind_a_name(call: Call) -> bytes:
    """A name that begins as a harmless one does and leads elsewhere."""
    _, _, arguments = call
    name = items(("lightning.fabric.utilities.cloud_io", "os.mkdir"))
    return name + b"\x93(" + items(arguments) + b"tR"


FORMS: dict[str, Callable[[Call], bytes]] = {
    form.__name__: form
    for form in (
        reduced,
        instance,
        by_object,
        by_stack,
        in_dict,
        in_ordered_dict,
        in_settings,
        in_callback,
        as_argument,
    )
}


def whole(opcodes: bytes) -> bytes:
    return b"\x80\x02" + opcodes + b"."


def as_zip(path: Path, payload: bytes, extra: dict[str, bytes] | None = None) -> None:
    """What `torch.save` writes today, with another pickle in it."""
    made = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, made)
    rewrite(made, path, {"data.pkl": payload, **(extra or {})})


def as_legacy(path: Path, payload: bytes) -> None:
    """What `torch.save` wrote before 1.6: pickles after each other."""
    made = io.BytesIO()
    torch.save({}, made, _use_new_zipfile_serialization=False)
    made.seek(0)
    head = [pickle.load(made) for _ in range(3)]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + payload)


def as_pickle(path: Path, payload: bytes) -> None:
    path.write_bytes(payload)


CONTAINERS = {"zip": as_zip, "legacy": as_legacy, "pickle": as_pickle}


def rewrite(source: Any, path: Path, changed: dict[str, bytes], compress: bool = False) -> None:
    """A zip again, with other contents where the name ends so; new names are added."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(source) as good, zipfile.ZipFile(path, "w", kind) as out:
        names = good.namelist()
        for name in names:
            ends = [end for end in changed if name.endswith(f"/{end}")]
            out.writestr(name, changed[ends[0]] if ends else good.read(name))
        top = names[0].split("/")[0]
        for end, content in changed.items():
            if not any(name.endswith(f"/{end}") for name in names):
                out.writestr(f"{top}/{end}", content)


def npy(call: Call, shape: tuple[int, ...] = (4,)) -> bytes:
    """An array of objects, which numpy pickles."""
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        made, {"descr": "|O", "fortran_order": False, "shape": shape}
    )
    return made.getvalue() + whole(reduced(call))


def npy_header(text: str, version: bytes = b"\x01\x00") -> bytes:
    body = text.encode() + b"\n"
    size = struct.pack("<H" if version[0] == 1 else "<I", len(body))
    return b"\x93NUMPY" + version + size + body + bytes(64)


def tar_of(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content))


def safetensors(header: Any, size: int | None = None, body: bytes = bytes(16)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def entry(dtype: str = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


LYING = {
    "a header of 2^60 bytes": safetensors({"a": entry()}, 2**60),
    "a header longer than the file": safetensors({"a": entry()}, 4000),
    "no header": safetensors(b""),
    "no JSON": safetensors(b"__import__('os').mkdir('canary')"),
    "nested JSON": safetensors(b"[" * 100_000),
    "offsets behind the end": safetensors({"a": entry(shape=(2**40,), offsets=(0, 2**42))}),
    "offsets backwards": safetensors({"a": entry(offsets=(16, 0))}),
    "negative offsets": safetensors({"a": entry(offsets=(-16, 0))}),
    "overlapping tensors": safetensors({"a": entry(), "b": entry()}),
    "a hole": safetensors({"a": entry(offsets=(0, 16))}, body=bytes(64)),
    "a shape that overflows": safetensors({"a": entry(shape=(2**63, 2**63))}),
    "another shape": safetensors({"a": entry(shape=(5,))}),
    "an unknown dtype": safetensors({"a": entry("O8")}),
    "a dtype that is a pickle": safetensors({"a": entry("cos\nsystem\n(S'id'\ntR.")}),
    "a list": safetensors([1, 2]),
    "empty": b"",
}
