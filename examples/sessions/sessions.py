"""A session store over HTTP. Sessions expire by the time of the requests that come in: there is no timer, so nothing
happens in Standby or Suspended, and a store that moved in mid-session forgets nothing too early or too late."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Dict

from processhub import Activation, CannotAccept, HttpError, Request, Worker

worker = Worker(vsn="1", module=__name__)

MAX_SESSIONS = 100_000
SWEEP = 64
"""Sessions that one request looks at to find those that are over."""


@dataclass
class Session:
    """Data of a client until a point in time, in seconds since 1970."""

    expires: float
    data: Dict[str, Any] = field(default_factory=dict)


@dataclass
class Settings:
    """What the process was created with."""

    seconds: float = 1800.0
    created: int = 0
    expired: int = 0


settings = worker.state(Settings)
sessions = worker.table("sessions", Session)
# Not part of the state: where the next sweep goes on.
unswept: "list[str]" = []


@worker.initial
def initial(activation: Activation) -> None:
    """`spec.config: {seconds: 600}` of the process says how long a session lives without being used."""
    config = activation.config if isinstance(activation.config, dict) else {}
    seconds = config.get("seconds", 1800)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds <= 0:
        raise CannotAccept("`config.seconds` is not a number above 0: correct the process's config")
    settings.value.seconds = seconds


def sweep() -> None:
    """Forgets some of those that are over; each session is looked at in turn."""
    now = time.time()
    if not unswept:
        unswept.extend(sessions)
    for _ in range(min(SWEEP, len(unswept))):
        name = unswept.pop()
        if name in sessions and sessions[name].expires <= now:
            del sessions[name]
            settings.value.expired += 1


def session(request: Request) -> Session:
    """The session that a request names, unless it is over."""
    found = sessions.get(request.params["id"])
    if found is None or found.expires <= time.time():
        raise HttpError(404, "no such session, or it has expired")
    return found


@worker.post("/sessions")
def create(request: Request) -> object:
    """Data as a JSON object, or nothing. The answer names the session."""
    data = request.json() if request.body else {}
    if not isinstance(data, dict):
        raise HttpError(400, "the data of a session is a JSON object")
    sweep()
    if len(sessions) >= MAX_SESSIONS:
        raise HttpError(507, f"there are {MAX_SESSIONS} sessions already: wait until some have expired")
    name = secrets.token_urlsafe(16)
    sessions[name] = Session(time.time() + settings.value.seconds, data)
    settings.value.created += 1
    return 201, {"id": name}


@worker.get("/sessions/{id}")
def read(request: Request) -> object:
    return session(request).data


@worker.put("/sessions/{id}")
def write(request: Request) -> object:
    """Other data, and a new lease of life."""
    session(request)
    data = request.json()
    if not isinstance(data, dict):
        raise HttpError(400, "the data of a session is a JSON object")
    sessions[request.params["id"]] = Session(time.time() + settings.value.seconds, data)
    return None


@worker.post("/sessions/{id}/touch")
def touch(request: Request) -> object:
    """A new lease of life."""
    session(request)
    with sessions.edit(request.params["id"]) as found:
        found.expires = time.time() + settings.value.seconds
    return None


@worker.delete("/sessions/{id}")
def end(request: Request) -> object:
    sessions.pop(request.params["id"], None)
    return None


@worker.get("/stats")
def stats(_: Request) -> object:
    return {"sessions": len(sessions), "created": settings.value.created, "expired": settings.value.expired}


@worker.load
def load() -> int:
    return len(sessions)


@worker.get("/healthz", probe=True)
def healthz(_: Request) -> object:
    return "ok\n"


if __name__ == "__main__":
    worker.run()
