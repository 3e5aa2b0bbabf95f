"""Builds the kernel of exported dreams, with clang and lld: python -m worldmodel.drive.export.build

The result is committed, so only those who change kernel.c need a compiler. The hash of the source
travels in the module, and a test compares it.
"""

import hashlib
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
SOURCE, KERNEL = HERE / "kernel.c", HERE / "kernel.wasm"
COMMAND = (
    "clang --target=wasm32 -O2 -msimd128 -ffp-contract=off -fno-builtin -nostdlib -Wall -Wextra "
    "-Werror -Wl,--no-entry -Wl,--strip-all -Wl,--export=__heap_base -Wl,-z,stack-size=8192"
)


def build(out: Path) -> None:
    """Compile the kernel, and mark it with the hash of its source."""
    subprocess.run([*COMMAND.split(), "-o", out, SOURCE], check=True)
    named = b"\x06source" + source_hash().encode()
    # A custom section: its number 0, its length, its name, its content. Engines skip it.
    out.write_bytes(out.read_bytes() + bytes([0, len(named)]) + named)


def source_hash() -> str:
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


if __name__ == "__main__":
    build(KERNEL)
    print(f"{KERNEL}: {KERNEL.stat().st_size} bytes")
