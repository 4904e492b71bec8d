"""The clients' side: lets requests in while the worker is Active, finds their handler and makes an answer of what it
returns."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from . import codec
from .contract import WorkerState
from .errors import LOG, NotActive
from .gate import Closed
from .http import Incoming, Outgoing

if TYPE_CHECKING:
    from .core import Core

READS = ("GET", "HEAD", "OPTIONS")
"""Methods of requests that change nothing."""
_TEXT = {"content-type": "text/plain; charset=utf-8"}
_JSON = {"content-type": "application/json"}


class HttpError(Exception):
    """An answer to a client that ends the handler, with everything that it changed undone."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """A client's request."""

    method: str
    path: str
    params: Mapping[str, str]
    """What stands for `{name}` in the handler's path."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes

    def json(self) -> Any:
        """The body as JSON; a client that sent none is told so with 400."""
        try:
            return codec.loads(self.body)
        except codec.BadValue as error:
            raise HttpError(400, f"the body is {error}") from None

    @property
    def text(self) -> str:
        """The body as text; a client that sent none is told so with 400."""
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            raise HttpError(400, "the body is not UTF-8") from None

    @property
    def epoch(self) -> Optional[int]:
        """A fencing token for resources outside: one that refuses lower ones than it has seen cannot be written to by an
        old owner. None without a sidecar."""
        text = self.headers.get("processhub-epoch", "")
        return int(text) if text.isascii() and text.isdigit() else None


@dataclass
class Response:
    """An answer in full. A body of pieces is sent chunked, and counts as running until it is out."""

    status: int = 200
    body: Union[bytes, str, Iterable[bytes]] = b""
    headers: Dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request], object]
"""Gives a `Response`, or its body: None (204), a text, bytes, or anything that is JSON; `(status, body)` for another status
than 200."""


@dataclass(frozen=True)
class Route:
    """A handler and what it is for."""

    method: str
    path: str
    handler: Handler
    concurrent: bool
    probe: bool

    def match(self, segments: Tuple[str, ...]) -> Optional[Dict[str, str]]:
        """The parameters, if the path is this route's."""
        pattern = self.path.split("/")[1:]
        if len(pattern) != len(segments):
            return None
        params: Dict[str, str] = {}
        for expected, found in zip(pattern, segments):
            if expected.startswith("{") and expected.endswith("}") and found:
                params[expected[1:-1]] = found
            elif expected != found:
                return None
        return params


class Routes:
    """The handlers of a worker."""

    def __init__(self) -> None:
        self._routes: List[Route] = []

    def add(self, route: Route) -> None:
        """Adds a handler; the first that fits is taken."""
        if not route.path.startswith("/"):
            raise ValueError(f"path {route.path!r} does not begin with a slash")
        self._routes.append(route)

    def find(self, incoming: Incoming) -> Union[Tuple[Route, Dict[str, str]], Outgoing]:
        """The handler with its parameters, or the answer that says that there is none."""
        allowed = set()
        for route in self._routes:
            params = route.match(incoming.segments)
            if params is not None:
                if incoming.method == route.method or (incoming.method == "HEAD" and route.method == "GET"):
                    return route, params
                allowed.add(route.method)
        if allowed:
            text = f"this path takes {', '.join(sorted(allowed))}\n".encode()
            return Outgoing(405, text, {**_TEXT, "allow": ", ".join(sorted(allowed))})
        return Outgoing(404, b"no such path\n", dict(_TEXT))


def answer_client(core: "Core", incoming: Incoming) -> Outgoing:
    """Answers a client's request, or says that it was not executed."""
    found = core.worker.routes.find(incoming)
    if not isinstance(found, Outgoing) and found[0].probe:
        return _run(found[0], incoming, found[1])
    with ExitStack() as running:
        try:
            running.enter_context(core.gate.admitted())
        except Closed as closed:
            return not_executed(closed.state)
        # Looked up again: the code may have changed while the request waited to be let in.
        worker = core.worker
        found = worker.routes.find(incoming)
        if isinstance(found, Outgoing):
            outgoing = found
        else:
            route, params = found
            changes = incoming.method not in READS
            try:
                with ExitStack() as alone:
                    alone.enter_context(core.gate.inside())
                    if not route.concurrent:
                        alone.enter_context(worker.clock.transaction(changes))
                    outgoing = _handle(route, incoming, params)
            except Exception as error:
                outgoing = _failed(error)
        outgoing.headers["processhub-seq"] = str(worker.clock.seq)
        # It counts as running until its answer is out.
        outgoing.done = running.pop_all().close
        return outgoing


def not_executed(state: WorkerState) -> Outgoing:
    """The worker does not serve now."""
    headers = {**_TEXT, "processhub-state": state.value, "retry-after": "1"}
    return Outgoing(503, b"this worker does not serve now; the request was not executed\n", headers)


def _run(route: Route, incoming: Incoming, params: Dict[str, str]) -> Outgoing:
    try:
        return _handle(route, incoming, params)
    except Exception as error:
        return _failed(error)


def _handle(route: Route, incoming: Incoming, params: Dict[str, str]) -> Outgoing:
    request = Request(
        incoming.method, incoming.path, params, incoming.query, incoming.headers, incoming.body
    )
    return _outgoing(route.handler(request))


def _failed(error: Exception) -> Outgoing:
    if isinstance(error, HttpError):
        return Outgoing(error.status, f"{error}\n".encode(), dict(_TEXT))
    LOG.error("a handler failed", exc_info=error)
    what = "the worker is not Active" if isinstance(error, NotActive) else "the worker failed"
    return Outgoing(500, f"{what}; its log says more\n".encode(), dict(_TEXT))


def _outgoing(result: object) -> Outgoing:
    if isinstance(result, Response):
        body = result.body.encode() if isinstance(result.body, str) else result.body
        return Outgoing(result.status, body, {name.lower(): value for name, value in result.headers.items()})
    status = 200
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], int):
        status, result = result
    elif result is None:
        return Outgoing(204)
    if result is None:
        return Outgoing(status)
    if isinstance(result, (bytes, bytearray)):
        return Outgoing(status, bytes(result), {"content-type": "application/octet-stream"})
    if isinstance(result, str):
        return Outgoing(status, result.encode(), dict(_TEXT))
    plain = codec.plain(result)
    return Outgoing(status, json.dumps(plain, separators=(",", ":"), allow_nan=False).encode() + b"\n", dict(_JSON))


