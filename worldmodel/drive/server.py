"""The page's server: this machine alone, one driver at a time, one thread that dreams."""

import errno
import json
import traceback
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from training.errors import BadInput
from worldmodel.drive.session import DriveSession

PAGE = Path(__file__).parent / "page.html"
HOST = "127.0.0.1"
MOST_BYTES = 1_000_000  # of a question
# Another website may send requests to this machine, but neither this header nor this host's name.
HEADER = "X-Dashcast-Client"
# Nothing is fetched from elsewhere, and nothing is sent there.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
POLICY += "connect-src 'self'; img-src 'self' data:; "
# These three do not follow from default-src: another site may not frame the page either.
POLICY += "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}


class Taken(BadInput):
    """Another page drives the dream."""


class DriveServer(ThreadingHTTPServer):
    """Serves one session to one page.

    Raises:
        BadInput: the port is in use, or not allowed.
    """

    daemon_threads = True

    def __init__(self, session: DriveSession, port: int) -> None:
        self.session, self.driver = session, ""
        # PyTorch keeps a pool of threads for every thread that computes.
        self.worker = ThreadPoolExecutor(1, "dream")
        try:
            super().__init__((HOST, port), DriveHandler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise BadInput(
                f"port={port}: {error.strerror}; give another, or port=0 for any that is free"
            ) from error

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    def answer(self, what: str, client: str, values: dict[str, Any]) -> dict[str, Any]:
        """Answer a page, in the thread that dreams; questions of others wait.

        Raises:
            Taken: another page drives.
            BadInput: as of `DriveSession.ask`.
        """
        return self.worker.submit(self._answer, what, client, values).result()

    def _answer(self, what: str, client: str, values: dict[str, Any]) -> dict[str, Any]:
        if what == "open":
            if self.driver not in ("", client) and not values.get("take"):
                raise Taken("another page drives this dream; close it, or take over")
            self.driver = client
            return self.session.describe()
        if what == "close":  # a page that leaves
            self.driver = "" if self.driver == client else self.driver
            return {}
        if client != self.driver:
            raise Taken("another page drives this dream now")
        return self.session.ask(what, values)


class DriveHandler(BaseHTTPRequestHandler):
    """GET / is the page, GET /saved/NAME a recording, POST /ask/WHAT a question in JSON."""

    server: DriveServer
    protocol_version = "HTTP/1.1"  # one connection for all frames
    wbufsize = -1  # head and body leave together: else the second waits for the first
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if not self._from_here():
            return
        saved = self.server.session.saved.get(self.path.removeprefix("/saved/"))
        if self.path == "/":
            self._send(HTTPStatus.OK, PAGE.read_bytes(), "text/html; charset=utf-8")
        elif saved is not None and self.path.startswith("/saved/"):
            self._send(HTTPStatus.OK, saved.read_bytes(), TYPES[saved.suffix])
        else:
            self._say(HTTPStatus.NOT_FOUND, {"error": f"{self.path[:60]}: is not here"})

    def do_POST(self) -> None:
        if not self._from_here():
            return
        try:
            values, client = self._asked(), self.headers.get(HEADER, "")
            if not client:
                raise BadInput(f"the header {HEADER} is missing; ask through the page")
            what = self.path.removeprefix("/ask/")
            self._say(HTTPStatus.OK, self.server.answer(what, client, values))
        except Taken as error:
            self._say(HTTPStatus.CONFLICT, {"error": str(error)})
        except BadInput as error:
            self._say(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the page has left
        except Exception as error:
            traceback.print_exc()
            said = f"{type(error).__name__}: {error}; the server's terminal tells more"
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": said})

    def _asked(self) -> dict[str, Any]:
        """The JSON object of a request; BadInput for anything else."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            self.close_connection = True
            raise BadInput(f"a question has a Content-Length up to {MOST_BYTES}")
        try:
            values = json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError as error:
            raise BadInput(f"a question is JSON ({error})") from error
        if not isinstance(values, dict):
            raise BadInput("a question is a JSON object")
        return values

    def _from_here(self) -> bool:
        """Whether the request names this host: another site's name may lead here as well."""
        name = self.headers.get("Host", "").partition(":")[0]
        if name in (HOST, "localhost"):
            return True
        self.close_connection = True
        self._say(HTTPStatus.FORBIDDEN, {"error": f"open {self.server.url}"})
        return False

    def _say(self, status: HTTPStatus, values: dict[str, Any]) -> None:
        self._send(status, json.dumps(values).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: ten requests a second are no news."""
