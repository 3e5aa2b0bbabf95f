"""`python` for tests that run many short commands: forks of a process that has imported torch.

Importing torch, lightning and the project takes most of the time of a short command. A server
imports them once; a small program named `python`, first on the path, hands it the arguments,
folder, environment and streams of each command, and ends with the exit status of the fork that ran
it.
"""

import contextlib
import importlib
import json
import multiprocessing.process
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [asked], [0, 1, 2])
    status = server.recv(16)
sys.exit(int(status) if status else "the server of warm_python is gone")
"""
LONGEST = 1 << 20  # bytes of a request
IMPORTED = (
    "training",  # first: it repairs torchvision
    "lightning",
    "datasets",
    "matplotlib.pyplot",
    "wandb",
    "training.run",
    "tokenizer.module",
    "worldmodel.module",
    "worldmodel.evaluation.judge",
)


@contextlib.contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """A folder with a `python` to put first on the path, while the server runs."""
    address = str(folder / "server")
    client = folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == "ready\n"
        yield folder
    finally:
        server.kill()
        server.wait()


def serve(address: str) -> list[str]:
    """Answers requests for ever; in the fork that runs one, returns its arguments."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork():
                connection.close()
                continue
            listener.close()
            return answer(connection)


def answer(connection: socket.socket) -> list[str]:
    """Waits for the fork that runs the command, and tells its status; returns in that fork."""
    asked, streams, _, _ = socket.recv_fds(connection, LONGEST, 3)
    arguments, folder, environment = json.loads(asked)
    command = os.fork()
    if command:
        status = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        connection.send(str(status).encode())
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.process.ORIGINAL_DIR = folder  # type: ignore[attr-defined]
    return arguments


def run(arguments: list[str]) -> None:
    """What `python` does with these arguments: `-c CODE ...`, `-m NAME ...` or `FILE ...`."""
    ahead = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path[:1] = ["", *ahead]
        exec(arguments[1], {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[:1] = [os.getcwd(), *ahead]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[:1] = [str(Path(arguments[0]).parent.resolve()), *ahead]
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    sys.path.remove(str(ROOT))
    run(serve(sys.argv[1]))
