"""A small HTTP/1.1 server with kept-alive connections: one thread for each connection, bodies bounded, answers written at
once."""

from __future__ import annotations

import re
import socket
import socketserver
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union
from urllib.parse import parse_qsl, unquote, urlsplit

from .errors import LOG

MAX_DRAIN = 64 << 20
"""How much of a body that is too large is read and dropped, so that the refusal arrives."""
_CHUNK_LINE = 4096


class BadBody(Exception):
    """A request's body that cannot be read, with the status to answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Incoming:
    """A request as it came in."""

    method: str
    path: str
    """Decoded, without the query."""
    segments: Tuple[str, ...]
    """The path's segments, each decoded by itself."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
    length_declared: bool


@dataclass
class Outgoing:
    """An answer. A body that is no bytes is sent in pieces: with a Content-Length if `length` says so, else chunked."""

    status: int = 200
    body: Union[bytes, Iterable[bytes]] = b""
    headers: Dict[str, str] = field(default_factory=dict)
    length: Optional[int] = None
    done: Callable[[], None] = lambda: None
    """Called when the answer is out, or cannot be sent."""


Answerer = Callable[[Incoming], Outgoing]
BadBodyAnswerer = Callable[[BadBody], Outgoing]


def in_words(error: BadBody) -> Outgoing:
    """The refusal of a body as text."""
    return Outgoing(error.status, f"{error}\n".encode(), {"content-type": "text/plain; charset=utf-8"})


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "HttpServer"

    def __getattr__(self, name: str) -> Any:
        # Every method is the answerer's business.
        if name.startswith("do_") and _TOKEN.fullmatch(name[3:]):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        try:
            incoming = self._incoming()
        except BadBody as error:
            self.close_connection = True
            self._send(self.server.bad_body(error))
            return
        outgoing = self.server.answerer(incoming)
        try:
            self._send(outgoing)
        finally:
            outgoing.done()

    def _incoming(self) -> Incoming:
        target = urlsplit(self.path) if not self.path.startswith("//") else urlsplit("/" + self.path.lstrip("/"))
        declared = self.headers.get("content-length")
        return Incoming(
            self.command,
            unquote(target.path),
            tuple(unquote(segment) for segment in target.path.split("/")[1:]),
            dict(parse_qsl(target.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            self._body(declared),
            declared is not None,
        )

    def _body(self, declared: Optional[str]) -> bytes:
        coding = self.headers.get("transfer-encoding")
        if coding is not None:
            if coding.strip().lower() != "chunked" or declared is not None:
                raise BadBody(400, "a body has either a Content-Length or the transfer coding chunked")
            return self._chunked()
        if declared is None:
            return b""
        if not declared.isascii() or not declared.isdigit():
            raise BadBody(400, "Content-Length is no number")
        length = int(declared)
        if length > self.server.longest:
            self._drop(length)
            raise BadBody(413, f"the body has {length} bytes, at most {self.server.longest} are taken: send less")
        return self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data: bytes = self.rfile.read(length)
        if len(data) != length:
            raise BadBody(400, "the body was cut short: send it again")
        return data

    def _chunked(self) -> bytes:
        pieces: List[bytes] = []
        total = 0
        while True:
            line = self.rfile.readline(_CHUNK_LINE)
            text = line.split(b";")[0].strip()
            if not line.endswith(b"\n") or not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", text):
                raise BadBody(400, "a chunk of the body has no length")
            length = int(text, 16)
            total += length
            if total > self.server.longest:
                raise BadBody(413, f"the body has more than {self.server.longest} bytes: send less")
            if length == 0:
                while self.rfile.readline(_CHUNK_LINE).strip():
                    pass
                return b"".join(pieces)
            pieces.append(self._exactly(length))
            if self.rfile.readline(_CHUNK_LINE).strip():
                raise BadBody(400, "a chunk of the body is longer than it says")

    def _drop(self, length: int) -> None:
        left = min(length, MAX_DRAIN)
        while left > 0:
            piece = self.rfile.read(min(left, 1 << 16))
            if not piece:
                return
            left -= len(piece)

    def _send(self, outgoing: Outgoing) -> None:
        body = outgoing.body
        empty = outgoing.status in (204, 304) or outgoing.status < 200
        headers = dict(outgoing.headers)
        chunked = False
        if not empty:
            length = len(body) if isinstance(body, (bytes, bytearray)) else outgoing.length
            chunked = length is None
            headers.update({"transfer-encoding": "chunked"} if length is None else {"content-length": str(length)})
        if self.close_connection:
            headers["connection"] = "close"
        head = self._head(outgoing.status, headers)
        if empty or self.command == "HEAD":
            self.wfile.write(head)
        elif isinstance(body, (bytes, bytearray)):
            self.wfile.write(head + body)
        else:
            self.wfile.write(head)
            for piece in body:
                if piece:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")

    @staticmethod
    def _head(status: int, headers: Mapping[str, str]) -> bytes:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Status"
        lines = [f"HTTP/1.1 {status} {phrase}"]
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name) or "\r" in value or "\n" in value:
                raise ValueError(f"header {name!r} cannot be sent")
            lines.append(f"{name}: {value}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing about single requests."""

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            # The other side went away.
            pass


class HttpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves `answerer` on an address, bodies of at most `longest` bytes."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(
        self, address: Tuple[str, int], answerer: Answerer, longest: int, bad_body: BadBodyAnswerer = in_words
    ) -> None:
        self.answerer = answerer
        self.bad_body = bad_body
        self.longest = longest
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.exception("a connection failed")
