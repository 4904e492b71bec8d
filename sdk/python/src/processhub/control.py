"""The contract's calls. Who may make them: the sidecar of the same pod, and nobody else, because they are served on the
pod's loopback only."""

from __future__ import annotations

import json
import re
from typing import Callable, List, Match, Optional, Tuple

from .captures import pieces, size
from .contract import (
    MAX_CONTROL_REQUEST,
    MAX_SLICE,
    Body,
    Reason,
    parse_activate,
    parse_apply,
    parse_capture,
    parse_code_change,
    parse_consent,
    part_name,
    plain_name,
)
from .core import Core
from .errors import Code, Refusal, refusal_of
from .http import BadBody, Incoming, Outgoing

_JSON = {"content-type": "application/json"}


def _json(value: object) -> Outgoing:
    return Outgoing(200, json.dumps(value, separators=(",", ":")).encode(), dict(_JSON))


def _done() -> Outgoing:
    return Outgoing(204)


def refused(refusal: Refusal) -> Outgoing:
    """A refusal as an answer."""
    return Outgoing(refusal.status, json.dumps(refusal.body()).encode(), dict(_JSON))


def _body(incoming: Incoming) -> Body:
    if len(incoming.body) > MAX_CONTROL_REQUEST:
        message = f"the body has {len(incoming.body)} bytes, at most {MAX_CONTROL_REQUEST} are taken: send less"
        raise Refusal(Code.TOO_LARGE, message)
    return Body(incoming.body)


def _info(core: Core, _: Incoming, __: Match[str]) -> Outgoing:
    return _json(core.info())


def _suspend(core: Core, incoming: Incoming, _: Match[str]) -> Outgoing:
    body = _body(incoming)
    core.suspend(body.integer("epoch"), body.choice("reason", Reason))
    return _done()


def _resume(core: Core, incoming: Incoming, _: Match[str]) -> Outgoing:
    core.resume(_body(incoming).integer("epoch"))
    return _done()


def _capture(core: Core, incoming: Incoming, _: Match[str]) -> Outgoing:
    capture = core.capture(parse_capture(_body(incoming)))
    return _done() if capture is None else _json(capture.answer())


def _read_part(core: Core, _: Incoming, at: Match[str]) -> Outgoing:
    lines = core.read(plain_name(at["id"]), part_name(at["part"]))
    return Outgoing(200, pieces(lines), {"content-type": "application/octet-stream"}, size(lines))


def _delete_capture(core: Core, _: Incoming, at: Match[str]) -> Outgoing:
    return _json(core.delete_capture(plain_name(at["id"])))


def _put_part(core: Core, incoming: Incoming, at: Match[str]) -> Outgoing:
    name, part = plain_name(at["id"]), part_name(at["part"])
    offset = incoming.query.get("offset", "")
    if not re.fullmatch(r"[0-9]{1,16}", offset):
        raise Refusal(Code.BAD_REQUEST, "`offset` is missing or no number: send ?offset=N")
    core.upload()
    if not incoming.length_declared:
        raise Refusal(Code.BAD_REQUEST, "a slice needs a Content-Length: send its bytes at once")
    core.put(name, part, int(offset), incoming.body)
    return _done()


def _apply(core: Core, incoming: Incoming, at: Match[str]) -> Outgoing:
    core.apply(plain_name(at["id"]), parse_apply(_body(incoming)))
    return _done()


def _delete_import(core: Core, _: Incoming, at: Match[str]) -> Outgoing:
    core.delete_import(plain_name(at["id"]))
    return _done()


def _activate(core: Core, incoming: Incoming, _: Match[str]) -> Outgoing:
    core.activate(parse_activate(_body(incoming)))
    return _done()


def _consent(core: Core, incoming: Incoming, _: Match[str]) -> Outgoing:
    ready = core.consent(parse_consent(_body(incoming)))
    return _json({"answer": "Ready" if ready else "Defer"})


def _code_change(core: Core, incoming: Incoming, _: Match[str]) -> Outgoing:
    core.code_change(parse_code_change(_body(incoming)))
    return _done()


_Call = Callable[[Core, Incoming, Match[str]], Outgoing]
_CALLS: List[Tuple[str, "re.Pattern[str]", _Call]] = [
    (method, re.compile(pattern), call)
    for method, pattern, call in [
        ("GET", r"/v1/info", _info),
        ("POST", r"/v1/suspend", _suspend),
        ("POST", r"/v1/resume", _resume),
        ("POST", r"/v1/capture", _capture),
        ("DELETE", r"/v1/capture/(?P<id>[^/]+)", _delete_capture),
        ("GET", r"/v1/capture/(?P<id>[^/]+)/(?P<part>[^/]+)", _read_part),
        ("DELETE", r"/v1/import/(?P<id>[^/]+)", _delete_import),
        # `apply` is a fine name for a part; only POST means the call of that name.
        ("POST", r"/v1/import/(?P<id>[^/]+)/apply", _apply),
        ("PUT", r"/v1/import/(?P<id>[^/]+)/(?P<part>[^/]+)", _put_part),
        ("POST", r"/v1/activate", _activate),
        ("POST", r"/v1/consent", _consent),
        ("POST", r"/v1/code-change", _code_change),
    ]
]


def answer_sidecar(core: Core, incoming: Incoming) -> Outgoing:
    """Answers a call of the contract."""
    known = False
    for method, pattern, call in _CALLS:
        at: Optional[Match[str]] = pattern.fullmatch(incoming.path)
        if at is None:
            continue
        known = True
        if method == incoming.method:
            try:
                return call(core, incoming, at)
            except Exception as error:
                return refused(refusal_of(error, f"{incoming.method} {pattern.pattern.split('(')[0]}", Code.INTERNAL))
    if not known:
        return refused(Refusal(Code.NOT_FOUND, "no such call in version 1 of the contract"))
    outgoing = refused(Refusal(Code.NOT_FOUND, "this call has another method in version 1 of the contract"))
    outgoing.status = 405
    return outgoing


def answer_bad_body(error: BadBody) -> Outgoing:
    """Answers a call whose body cannot be read."""
    return refused(Refusal(Code.TOO_LARGE if error.status == 413 else Code.BAD_REQUEST, str(error)))


LONGEST_BODY = MAX_SLICE
"""Longest body that the contract's server reads."""
