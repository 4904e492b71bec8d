"""Any WSGI application behind the gate of a worker."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Tuple

from .clients import READS, not_executed
from .contract import WorkerState
from .gate import Closed

if TYPE_CHECKING:
    from .worker import Worker

Wsgi = Callable[[Dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application."""


class _Body:
    """An answer whose request counts as running until the server has sent it, which it says by `close`."""

    def __init__(self, pieces: List[bytes], close: Callable[[], None]) -> None:
        self._pieces = pieces
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


def guarded(worker: "Worker", application: Wsgi, concurrent: bool, probes: Tuple[str, ...]) -> Wsgi:
    """See `Worker.wsgi`."""

    def answer(environ: Dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") in probes:
            return application(environ, start_response)
        with ExitStack() as running:
            try:
                gate = worker.gate
                if gate is None:
                    raise Closed(WorkerState.STANDBY)
                running.enter_context(gate.admitted())
            except Closed as closed:
                refusal = not_executed(closed.state)
                start_response("503 Service Unavailable", list(refusal.headers.items()))
                return [refusal.body] if isinstance(refusal.body, bytes) else refusal.body
            begun: List[Tuple[Any, ...]] = []
            with ExitStack() as alone:
                alone.enter_context(gate.inside())
                if not concurrent:
                    changes = environ.get("REQUEST_METHOD") not in READS
                    alone.enter_context(worker.clock.transaction(changes))
                result = application(environ, lambda *arguments: begun.append(arguments))
                try:
                    pieces = list(result)
                finally:
                    close = getattr(result, "close", None)
                    if close is not None:
                        close()
            status, headers, *rest = begun[-1]
            start_response(status, [*headers, ("ProcessHub-Seq", str(worker.clock.seq))], *rest)
            return _Body(pieces, running.pop_all().close)

    return answer
