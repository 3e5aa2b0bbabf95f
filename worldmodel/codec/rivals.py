"""What other codecs make of the same tokens."""

import lzma
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Integer

# Commands that compress a file FILE to OUT, as small as they can.
COMMANDS = {
    "zstd": ["zstd", "-q", "--ultra", "-22", "{file}", "-o", "{out}"],
    "xz": ["sh", "-c", 'xz -9 --extreme --stdout "$1" > "$2"', "sh", "{file}", "{out}"],
    "zpaq": ["zpaq", "add", "{out}", "{file}", "-method", "5", "-threads", "1"],
}
SUFFIX = {"zpaq": ".zpaq"}
LEFT_OUT = 2**28  # bytes from which on they would take hours


def rivals(tokens: Integer[np.ndarray, "step *grid"], vocab_size: int) -> dict[str, int | None]:
    """Bytes of the tokens by other codecs; None where one is not installed.

    "as given" is frame by frame, "transposed" is cell by cell through time: what each calls near
    differs. Tokens take the fewest whole bytes.
    """
    kind = "<u1" if vocab_size <= 2**8 else "<u2" if vocab_size <= 2**16 else "<u4"
    given = np.ascontiguousarray(tokens.reshape(len(tokens), -1).astype(kind))
    sizes: dict[str, int | None] = {}
    if given.nbytes > LEFT_OUT:
        return sizes
    for way, content in (("as given", given.tobytes()), ("transposed", given.T.tobytes())):
        sizes[f"lzma, {way}"] = len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
        for name in COMMANDS:
            sizes[f"{name}, {way}"] = _bytes_by(name, content)
    return sizes


def _bytes_by(name: str, content: bytes) -> int | None:
    if shutil.which(COMMANDS[name][0]) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder, "tokens"), Path(folder, f"out{SUFFIX.get(name, '')}")
        file.write_bytes(content)
        words = [word.format(file=file, out=out) for word in COMMANDS[name]]
        subprocess.run(words, check=True, capture_output=True)
        return out.stat().st_size
