"""The words and bodies of the worker contract, version 1, and their bounds.

Fields that are not known are ignored, so that a newer sidecar can talk to an older worker."""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from typing import Dict, List, Mapping, NamedTuple, NoReturn, Optional, Type, TypeVar, Union

from .errors import Code, Refusal

CONTRACT_VERSION = 1
MAX_INTEGER = 2**53 - 1
"""Largest integer on the wire: the largest that every JSON reader keeps exactly."""
MAX_SLICE = 8 << 20
"""Largest slice of an import, in bytes."""
MAX_CONTROL_REQUEST = 1 << 20
"""Largest body of a control request, in bytes."""
MAX_PARTS = 1024
MAX_TEXT = 128
"""Longest `vsn` and `instance`, in bytes."""
MAX_VERSIONS = 64

_PART = re.compile(r"[a-z0-9._-]{1,63}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class WorkerState(str, enum.Enum):
    """What a worker is doing."""

    STANDBY = "Standby"
    ACTIVE = "Active"
    SUSPENDED = "Suspended"


class Reason(str, enum.Enum):
    """Why a worker is suspended, is given a state, or is activated."""

    START = "Start"
    HANDOVER = "Handover"
    CRASH = "Crash"
    CODE_CHANGE = "CodeChange"
    TRANSFER = "Transfer"
    ROLLBACK = "Rollback"
    MERGE = "Merge"


class Direction(str, enum.Enum):
    """Whether the code that takes a state is newer than the code that gave it (or the same), or older."""

    UP = "Up"
    DOWN = "Down"


class Purpose(str, enum.Enum):
    """What a capture is for."""

    HANDOVER = "Handover"
    CHECKPOINT = "Checkpoint"


class Down(NamedTuple):
    """`old_vsn` of a code change that goes back: the state was written by the newer version `vsn`."""

    vsn: str


OldVsn = Union[str, Down]
"""What `code_change` is told: the version that wrote the state, as `Down(vsn)` when this code is the older one."""


def part_name(text: str) -> str:
    """A part's name, checked."""
    if not _PART.fullmatch(text) or text in (".", ".."):
        raise Refusal(Code.BAD_REQUEST, f"{text[:80]!r}: a part's name has 1 to 63 characters of a-z, 0-9, '.', '_' and '-'")
    return text


def plain_name(text: str) -> str:
    """The name of a capture or import, checked."""
    if not _NAME.fullmatch(text):
        message = "the name of a capture or import has 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'"
        raise Refusal(Code.BAD_REQUEST, f"{text[:80]!r}: {message}")
    return text


@dataclass(frozen=True)
class PartSize:
    """Name and length of one part."""

    name: str
    bytes: int


@dataclass(frozen=True)
class CaptureRequest:
    """Body of `POST /v1/capture`."""

    epoch: int
    purpose: Purpose
    since: Optional[int]
    unless_seq: Optional[int]


@dataclass(frozen=True)
class ApplyRequest:
    """Body of `POST /v1/import/{import}/apply`. `extra` is kept as JSON text, so that two bodies can be compared."""

    epoch: int
    reason: Reason
    vsn: str
    direction: Direction
    extra: str
    seq: int
    since: Optional[int]
    parts: tuple[PartSize, ...]
    dry_run: bool


@dataclass(frozen=True)
class CodeChangeRequest:
    """Body of `POST /v1/code-change`."""

    epoch: int
    origin: str
    to: str
    direction: Direction
    extra: str
    """JSON text, so that two bodies can be compared."""


@dataclass(frozen=True)
class Activation:
    """What a worker is told when it begins to serve."""

    epoch: int
    """A fencing token for resources outside."""
    reason: Reason
    initial: bool
    """True: with an initial state. False: with the one that was given."""
    config: object = None
    """`spec.config` of the process, as JSON."""
    labels: Mapping[str, str] = ()  # type: ignore[assignment]
    """Labels of the process."""
    may_miss: Optional[int] = None
    """First number of a change that may be missing after a crash; None when nothing is."""


@dataclass(frozen=True)
class ConsentRequest:
    """A move is wanted: what the consent handler is asked."""

    reason: Reason
    """For what it would be suspended."""
    forced_at_time: Optional[str]
    """From when on it is no longer asked, as RFC 3339 has it; None when it is always asked."""


def _bad(message: str) -> NoReturn:
    raise Refusal(Code.BAD_REQUEST, message)


def _no_constant(text: str) -> NoReturn:
    _bad(f"body: {text} is not JSON")


_E = TypeVar("_E", bound=enum.Enum)


class Body:
    """A JSON object that came in, read field by field."""

    def __init__(self, raw: bytes) -> None:
        try:
            value = json.loads(raw.decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
            raise Refusal(Code.BAD_REQUEST, f"body: not JSON{where}") from None
        if not isinstance(value, dict):
            _bad("body: not a JSON object")
        self.fields: Dict[str, object] = value

    def optional_integer(self, name: str) -> Optional[int]:
        """An integer from 0 to 2^53 - 1, or nothing."""
        value = self.fields.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            _bad(f"`{name}` is not a natural number")
        if value > MAX_INTEGER:
            _bad(f"`{name}` is above 2^53 - 1, which JSON readers do not keep exactly: send a smaller integer")
        return value

    def integer(self, name: str) -> int:
        """An integer from 0 to 2^53 - 1."""
        value = self.optional_integer(name)
        return _bad(f"`{name}` is missing: send a natural number") if value is None else value

    def text(self, name: str, longest: int = MAX_TEXT) -> str:
        """A text, empty when absent."""
        value = self.fields.get(name, "")
        if not isinstance(value, str):
            _bad(f"`{name}` is not a text")
        if len(value.encode("utf-8", "replace")) > longest:
            _bad(f"`{name}` is longer than {longest} bytes: shorten it")
        return value

    def flag(self, name: str, default: Optional[bool] = None) -> bool:
        """True or false; required without a default."""
        value = self.fields.get(name, default)
        return value if isinstance(value, bool) else _bad(f"`{name}` is not true or false")

    def choice(self, name: str, of: Type[_E], default: Optional[_E] = None) -> _E:
        """One word of a vocabulary; required without a default."""
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        try:
            return of(value)
        except ValueError:
            words = ", ".join(str(word.value) for word in of)
            _bad(f"`{name}` is none of {words}")

    def parts(self) -> tuple[PartSize, ...]:
        """Names and lengths, each name once."""
        listed = self.fields.get("parts")
        if not isinstance(listed, list):
            _bad("`parts` is not a list")
        if len(listed) > MAX_PARTS:
            _bad(f"`parts` has more than {MAX_PARTS} entries: send fewer")
        found: List[PartSize] = []
        seen = set()
        for entry in listed:
            name = entry.get("name") if isinstance(entry, dict) else None
            size = entry.get("bytes") if isinstance(entry, dict) else None
            if not isinstance(name, str) or not isinstance(size, int) or isinstance(size, bool):
                _bad("`parts` has an entry that is not {name, bytes}")
            if not 0 <= size <= MAX_INTEGER:
                _bad("`parts.bytes` is not a natural number up to 2^53 - 1")
            if part_name(name) in seen:
                _bad(f"`parts` names `{name}` twice: give each part a name of its own")
            seen.add(name)
            found.append(PartSize(name, size))
        return tuple(found)


def parse_capture(body: Body) -> CaptureRequest:
    """Reads the body of a capture."""
    return CaptureRequest(
        body.integer("epoch"),
        body.choice("purpose", Purpose),
        body.optional_integer("since"),
        body.optional_integer("unlessSeq"),
    )


def parse_apply(body: Body) -> ApplyRequest:
    """Reads the body of an apply."""
    return ApplyRequest(
        body.integer("epoch"),
        body.choice("reason", Reason),
        body.text("vsn"),
        body.choice("direction", Direction, Direction.UP),
        json.dumps(body.fields.get("extra"), sort_keys=True),
        body.integer("seq"),
        body.optional_integer("since"),
        body.parts(),
        body.flag("dryRun", False),
    )


def parse_activate(body: Body) -> Activation:
    """Reads the body of an activate."""
    process = body.fields.get("process")
    if process is None:
        process = {}
    labels = process.get("labels", {}) if isinstance(process, dict) else None
    sound = isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values())
    if not isinstance(process, dict) or not isinstance(labels, dict) or not sound:
        _bad("`process` is not {config, labels}")
    return Activation(
        body.integer("epoch"),
        body.choice("reason", Reason),
        body.flag("initial"),
        process.get("config"),
        labels,
        body.optional_integer("mayMiss"),
    )


def parse_code_change(body: Body) -> CodeChangeRequest:
    """Reads the body of a code change."""
    return CodeChangeRequest(
        body.integer("epoch"),
        body.text("from"),
        body.text("to"),
        body.choice("direction", Direction, Direction.UP),
        json.dumps(body.fields.get("extra"), sort_keys=True),
    )


def parse_consent(body: Body) -> ConsentRequest:
    """Reads the body of a question for consent."""
    return ConsentRequest(body.choice("reason", Reason), body.text("forcedAtTime") or None)
