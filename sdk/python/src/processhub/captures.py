"""States on their way out: the parts of the captures that are held, readable as often as asked."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional

from .contract import MAX_PARTS
from .errors import Code, Refusal

MAX_HELD = 4
"""Captures that can be read at a time: a move's and a checkpoint's, and one of each whose caller went away."""
MAX_DELETED = 16
PIECE = 1 << 20
"""Bytes that are sent at once."""


@dataclass(frozen=True)
class Capture:
    """One point in time over all parts."""

    name: str
    seq: int
    vsn: str
    since: Optional[int]
    parts: Dict[str, List[bytes]]
    whole: bool
    """Whether nothing can change the parts that are not tracked: it was captured while suspended."""

    def sizes(self) -> List[Dict[str, object]]:
        """Names and lengths."""
        return [{"name": name, "bytes": size(lines)} for name, lines in self.parts.items()]

    def answer(self) -> Dict[str, object]:
        """Body of the answer of `POST /v1/capture`."""
        body: Dict[str, object] = {"capture": self.name, "seq": self.seq, "vsn": self.vsn, "parts": self.sizes()}
        return body if self.since is None else {**body, "since": self.since}


def size(lines: List[bytes]) -> int:
    """Length of a part."""
    return sum(map(len, lines))


def pieces(lines: List[bytes]) -> Iterator[bytes]:
    """The bytes of a part in pieces of about 1 MiB."""
    held: List[bytes] = []
    length = 0
    for line in lines:
        held.append(line)
        length += len(line)
        if length >= PIECE:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)


class Captures:
    """The captures of a worker that can be read, and the counts of those that were deleted."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._count = 0
        self._held: OrderedDict[str, Capture] = OrderedDict()
        self._deleted: OrderedDict[str, List[Dict[str, object]]] = OrderedDict()

    def same(self, seq: int, since: Optional[int]) -> Optional[Capture]:
        """One that is held of this state."""
        held = (capture for capture in self._held.values() if capture.whole)
        return next((capture for capture in held if (capture.seq, capture.since) == (seq, since)), None)

    def hold(self, seq: int, vsn: str, since: Optional[int], parts: Dict[str, List[bytes]], whole: bool) -> Capture:
        """Holds a new capture, and drops the oldest of too many."""
        if len(parts) > MAX_PARTS:
            message = f"the worker captured {len(parts)} parts, at most {MAX_PARTS} are allowed: use fewer tables"
            raise Refusal(Code.INTERNAL, message)
        self._count += 1
        capture = Capture(f"{self._instance}-{self._count}", seq, vsn, since, parts, whole)
        self._held[capture.name] = capture
        while len(self._held) > MAX_HELD:
            self._held.popitem(last=False)
        return capture

    def read(self, name: str, part: str) -> List[bytes]:
        """The bytes of one part."""
        held = self._held.get(name)
        if held is None or part not in held.parts:
            message = f"no part `{part}` of a capture `{name}`: it was deleted, or the worker resumed"
            raise Refusal(Code.NOT_FOUND, message)
        return held.parts[part]

    def delete(self, name: str) -> Dict[str, object]:
        """Forgets a capture and says how long its parts were."""
        held = self._held.pop(name, None)
        if held is not None:
            self._deleted[name] = held.sizes()
            while len(self._deleted) > MAX_DELETED:
                self._deleted.popitem(last=False)
        if name not in self._deleted:
            message = f"no capture `{name}`: the worker has restarted or resumed since"
            raise Refusal(Code.NOT_FOUND, message)
        return {"parts": self._deleted[name]}

    def clear(self) -> None:
        """The state may change from now on, or became another."""
        self._held.clear()
