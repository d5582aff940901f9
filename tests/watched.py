"""Runs to watch, for the tests of `probemill top`: endpoints that answer as they are told, and sources of views."""

import contextlib
import html
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from engine.cli.top.view import UnseenError, View

CELL = 12.2  # the width of a character in a picture
Answer = Callable[[BaseHTTPRequestHandler], None]


def text(body: str | bytes, status: int = 200, **headers: str) -> Answer:
    """An answer of plain text."""

    def answer(asked: BaseHTTPRequestHandler) -> None:
        asked.send_response(status)
        for name, value in headers.items():
            asked.send_header(name, value)
        asked.end_headers()
        asked.wfile.write(body.encode() if isinstance(body, str) else body)

    return answer


@contextlib.contextmanager
def endpoint(answers: dict[str, Answer]) -> Iterator[int]:
    """The port of a server on loopback. answers: by path, live; 404 for all else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answers.get(self.path, text("", 404))(self)

        def log_message(self, *_: Any) -> None:
            """Nobody is told."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Told:
    """A source that says what lies in `views`, the last of them again and again; an error is raised."""

    where = "a run that is told"

    def __init__(self, *views: View | UnseenError) -> None:
        self.views = list(views)

    def look(self) -> View:
        said = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        if isinstance(said, UnseenError):
            raise said
        return said


def texts_of(svg: str) -> list[str]:
    """The lines of a screen, from its picture; a line without text is left out."""
    lines: dict[float, str] = {}
    for x, y, said in re.findall(
        r'<text class="[^"]*-r[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', svg, re.DOTALL
    ):
        plain = html.unescape(said).replace("\xa0", " ")
        lines[float(y)] = lines.get(float(y), "").ljust(round(float(x) / CELL)) + plain
    return [line.strip() for _, line in sorted(lines.items()) if line.strip()]
