"""Refusals: what a worker says when it does not do as it was asked."""

from __future__ import annotations

import enum
import logging
import unicodedata
from typing import Dict, Optional

MAX_MESSAGE = 1024
"""Longest message of a refusal, in bytes."""

LOG = logging.getLogger("processhub")


class Code(str, enum.Enum):
    """The kinds of refusal, as the contract names them."""

    STALE_EPOCH = "StaleEpoch"
    WRONG_STATE = "WrongState"
    WRONG_OFFSET = "WrongOffset"
    INCOMPLETE = "Incomplete"
    WRONG_BASE = "WrongBase"
    INITIAL_MISMATCH = "InitialMismatch"
    CANNOT_ACCEPT = "CannotAccept"
    TOO_LARGE = "TooLarge"
    BAD_REQUEST = "BadRequest"
    NOT_FOUND = "NotFound"
    NO_STATE = "NoState"
    BUSY = "Busy"
    INTERNAL = "Internal"


_STATUS = {
    Code.STALE_EPOCH: 409,
    Code.WRONG_STATE: 409,
    Code.WRONG_OFFSET: 409,
    Code.INCOMPLETE: 409,
    Code.WRONG_BASE: 409,
    Code.INITIAL_MISMATCH: 409,
    Code.CANNOT_ACCEPT: 422,
    Code.TOO_LARGE: 413,
    Code.BAD_REQUEST: 400,
    Code.NOT_FOUND: 404,
    Code.NO_STATE: 501,
    Code.BUSY: 503,
    Code.INTERNAL: 500,
}


def clean(message: str) -> str:
    """One line of at most 1 KiB: control characters become spaces, what no encoding can hold is dropped."""
    spaced = "".join(" " if unicodedata.category(c) == "Cc" else c for c in message.strip())
    return spaced.encode("utf-8", "ignore")[:MAX_MESSAGE].decode("utf-8", "ignore")


class Refusal(Exception):
    """A worker's no. The message is shown on the process's object: say what was wrong and what mends it, and never put
    bytes of the state into it."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        state: Optional[str] = None,
        epoch: Optional[int] = None,
        have: Optional[int] = None,
    ) -> None:
        super().__init__(clean(message))
        self.code = code
        self.message = clean(message)
        self.state = state
        self.epoch = epoch
        self.have = have

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return _STATUS[self.code]

    def body(self) -> Dict[str, object]:
        """The answer's body."""
        fields = {"state": self.state, "epoch": self.epoch, "have": self.have}
        present = {name: value for name, value in fields.items() if value is not None}
        return {"code": self.code.value, "message": self.message, **present}


class CannotAccept(Refusal):
    """The worker cannot take this state, now or later: the move or code change is undone and the old owner goes on."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.CANNOT_ACCEPT, message)


class TooLarge(Refusal):
    """The state is too large for this worker: the move is undone."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.TOO_LARGE, message)


class Busy(Refusal):
    """Not now: the sidecar asks again while there is time."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.BUSY, message)


class NotActive(RuntimeError):
    """Something wanted to change the state of a worker that is not Active."""


def refusal_of(error: Exception, what: str, code: Code) -> Refusal:
    """The author's code raised: its own refusals pass, anything else becomes one that names the kind of error only, since
    an error's text may hold the state. The whole of it is in the worker's log."""
    if isinstance(error, Refusal):
        return error
    LOG.error("%s failed", what, exc_info=error)
    return Refusal(code, f"{what} raised {type(error).__name__}; the worker's log says more")
