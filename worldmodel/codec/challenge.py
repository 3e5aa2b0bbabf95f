"""commaVQ's compression challenge: a zip with the data and a decompress.py that stands alone.

The published evaluator unpacks the zip, runs decompress.py with OUTPUT_DIR, compares every array
and divides 10 bits per token by the size of the zip. So the zip holds the container, the packed
models and the sources that decode them; what PyPI has is free.

    python -m worldmodel.codec.challenge FOLDER OUT     what decompress.py runs
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drives.tokens.store import TokenStore
from training.cli import bad_input_fails
from training.disk.leftovers import written_whole
from training.disk.places import refuse_existing, writable_file
from training.errors import BadInput
from worldmodel.codec.compress import compress, measured
from worldmodel.codec.decompress import decompress
from worldmodel.codec.options import CodecOptions
from worldmodel.codec.packing.packed import is_packed
from worldmodel.codec.reading import read_header

ROOT = Path(__file__).parent.parent.parent
TOKENS, CODE, MODEL = "tokens.codec", "code.tar.xz", "{}.model"
RAW_BITS = 10  # of a token, by the evaluator's count
SCRIPT = '''#!/usr/bin/env python3
"""Decodes the tokens beside this file into OUTPUT_DIR."""
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

here = Path(__file__).resolve().parent
out = os.environ.get("OUTPUT_DIR", str(here))
with tempfile.TemporaryDirectory() as folder:
    with tarfile.open(here / "code.tar.xz") as code:
        code.extractall(folder, filter="data")
    path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "worldmodel.codec.challenge", str(here), out]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
'''


def submission(source: Path, out: Path, options: CodecOptions, cache: str = "data") -> str:
    """Write the zip `out`; returns its size, its parts and its rate in words.

    Raises:
        BadInput: as `compress`; or a model that is not packed.
    """
    out = writable_file("out", out)
    refuse_existing("out", out)
    for ckpt in options.ckpts:
        if not is_packed(Path(ckpt)):
            raise BadInput(f"ckpt={ckpt}: the zip holds models in few bytes; pack it first")
    if options.ckpts and options.arithmetic != "exact":
        raise BadInput(
            f"arithmetic={options.arithmetic}: the zip must decode on any machine; give exact"
        )
    with tempfile.TemporaryDirectory() as folder:
        container = Path(folder, TOKENS)
        compress(source, container, options, cache)
        coded, spec = measured(container), read_header(container)[0].spec
        if spec["vocab_size"] > 2**RAW_BITS:
            raise BadInput(
                f"{source}: holds {spec['vocab_size']} tokens; the challenge's have {RAW_BITS} bits"
            )
        parts = {"decompress.py": SCRIPT.encode(), TOKENS: container.read_bytes(), CODE: sources()}
    for number, ckpt in enumerate(options.ckpts):
        parts[MODEL.format(number)] = Path(ckpt).read_bytes()
    with written_whole(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    size, raw = out.stat().st_size, coded.num_tokens * RAW_BITS / 8
    names = ", ".join(f"{name} {len(content)}" for name, content in parts.items())
    return f"{out}: {size} bytes ({names}): rate {raw / size:.3f}"


def sources() -> bytes:
    """What `main` imports of our packages, as a tar.xz."""
    code = (
        "import sys, worldmodel.codec.challenge\n"
        "for module in list(sys.modules.values()):\n"
        "    print(getattr(module, '__file__', None) or '')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = {Path(line) for line in found.stdout.splitlines() if line}
    packages = ("drives", "tokenizer", "training", "worldmodel")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz", preset=9) as tar:
        for file in sorted(files):
            inside = file.relative_to(ROOT) if file.is_relative_to(ROOT) else None
            if inside is None or inside.parts[0] not in packages:
                continue
            info, text = tarfile.TarInfo(inside.as_posix()), file.read_bytes()
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return content.getvalue()


def unpack(folder: Path, out: Path) -> None:
    """Decode what the zip held to one .npy file per segment, as the evaluator looks for them.

    Raises:
        BadInput: as `decompress`.
    """
    container = folder / TOKENS
    ckpts = [str(path) for path in sorted(folder.glob(MODEL.format("*")))]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        if read_header(container)[0].source.get("kind") == "npy":
            decompress(container, back := Path(place, "tokens.npy"), ckpts)
            np.save(out / back.name, np.load(back).astype(np.int16))
            return
        decompress(container, back := Path(place, "store"), ckpts)
        for drive in TokenStore(back).all:
            name = drive.id if drive.id.endswith(".npy") else f"{drive.id}.npy"
            np.save(out / name, np.asarray(drive.tokens).astype(np.int16))


def main(arguments: Sequence[str]) -> None:
    with bad_input_fails():
        unpack(Path(arguments[0]), Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
