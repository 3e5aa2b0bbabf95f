"""A local HTTP server of a folder, with the faults of real ones."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Faults:
    """What the server does wrong.

    Attributes:
        latency_s: before every answer.
        fails: answers of 503 that are left for every file.
        cuts: answers that are left for every file, in which half of the bytes arrive.
        asked: how often each file was sent or refused.
    """

    def __init__(self, latency_s: float = 0.0, fails: int = 0, cuts: int = 0) -> None:
        self.latency_s, self.fails, self.cuts = latency_s, fails, cuts
        self.asked: Counter[str] = Counter()


class _Handler(SimpleHTTPRequestHandler):
    faults: Faults

    def do_GET(self) -> None:
        time.sleep(self.faults.latency_s)
        name = self.path.strip("/")
        self.faults.asked[name] += 1
        local = Path(self.translate_path(self.path))
        if local.is_file() and self.faults.asked[name] <= self.faults.fails:
            self.send_error(503)
            return
        if local.is_file() and self.faults.asked[name] <= self.faults.fails + self.faults.cuts:
            data = local.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@contextmanager
def served(folder: Path, faults: Faults | None = None) -> Iterator[str]:
    """The URL of a folder, while the block lasts."""
    handler = type("Handler", (_Handler,), {"faults": faults or Faults()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
