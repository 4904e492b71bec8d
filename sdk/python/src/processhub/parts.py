"""What the parts of a state have in common, and the part that its author captures and restores by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Protocol

from . import codec
from .clock import Clock
from .contract import OldVsn
from .errors import CannotAccept, Code, Refusal, refusal_of


@dataclass(frozen=True)
class Change:
    """How a state that came in is made one of this version: present when another version wrote it."""

    old_vsn: OldVsn
    extra: object
    code_change: Optional[Callable[[OldVsn, Any, Any], object]]

    def convert(self, value: object) -> object:
        """The part `state` in this version's form."""
        if self.code_change is None:
            return value
        try:
            return codec.plain(self.code_change(self.old_vsn, value, self.extra))
        except Exception as error:
            raise refusal_of(error, "code_change", Code.CANNOT_ACCEPT) from error


Install = Callable[[int], None]
"""Puts a decoded part into its place, with the state's number."""


class Part(Protocol):
    """One part of a state."""

    name: str

    @property
    def floor(self) -> Optional[int]:
        """The lowest number on which a delta is known; None where none is."""

    def lines(self, since: Optional[int]) -> Optional[List[bytes]]:
        """Its bytes in pieces, or of what changed after `since`; None when nothing did."""

    def decode(self, raw: bytes, delta: bool, change: Optional[Change]) -> Install:
        """Makes a part out of bytes and changes nothing yet."""

    def plain(self, raw: bytes, change: Optional[Change]) -> Any:
        """The whole part as a plain value."""

    def encode(self, value: Any) -> bytes:
        """The whole part from a plain value."""

    def reset(self) -> None:
        """Begins anew."""


def unreadable(name: str, error: Exception) -> Refusal:
    """The bytes of a part are not what this version writes. Of an error that is not ours only the kind is told: its text
    may hold the state."""
    why = error if isinstance(error, codec.BadValue) else type(error).__name__
    return CannotAccept(f"part `{name}` is not as this version writes it: {why}")


class ManualPart:
    """A part that its author captures and restores.

        document = worker.part("state")

        @document.capture
        def capture() -> object: ...

        @document.restore
        def restore(value: Any) -> None: ...

    `capture` gives a JSON value, or bytes with `raw=True`; `restore` gets the same. It is captured while the worker is
    suspended, alone."""

    def __init__(self, name: str, clock: Clock, raw: bool) -> None:
        self.name = name
        self._clock = clock
        self._raw = raw
        self._capture: Optional[Callable[[], object]] = None
        self._restore: Optional[Callable[[Any], object]] = None
        clock.on_settle(self._settle, lambda: None)

    def capture(self, handler: Callable[[], object]) -> Callable[[], object]:
        """Decorates what gives the part's value."""
        self._capture = handler
        return handler

    def restore(self, handler: Callable[[Any], object]) -> Callable[[Any], object]:
        """Decorates what takes the part's value. It raises before it changes anything, or not at all."""
        self._restore = handler
        return handler

    def _settle(self) -> None:
        # Nobody says what changed, so everything may have.
        self._clock.pending()

    @property
    def floor(self) -> Optional[int]:
        """Nobody says what changed: no deltas."""
        return None

    def lines(self, since: Optional[int]) -> Optional[List[bytes]]:
        """The whole part."""
        if self._capture is None:
            raise Refusal(Code.INTERNAL, f"part `{self.name}` has no capture handler: decorate one")
        try:
            value = self._capture()
            if not self._raw:
                return [codec.dumps(value)]
            if isinstance(value, (bytes, bytearray)):
                return [bytes(value)]
            raise TypeError(f"raw=True wants bytes, not {type(value).__name__}")
        except Exception as error:
            raise refusal_of(error, f"the capture handler of part `{self.name}`", Code.INTERNAL) from error

    def decode(self, raw: bytes, delta: bool, change: Optional[Change]) -> Install:
        """Reads it; the author's handler runs only when it is installed."""
        handler = self._restore
        if handler is None:
            raise CannotAccept(f"part `{self.name}` has no restore handler: decorate one")
        value = self.plain(raw, change)

        def install(_: int) -> None:
            try:
                handler(value)
            except Exception as error:
                what = f"the restore handler of part `{self.name}`"
                raise refusal_of(error, what, Code.CANNOT_ACCEPT) from error

        return install

    def plain(self, raw: bytes, change: Optional[Change]) -> Any:
        """What `restore` gets."""
        value: object = raw
        if not self._raw:
            try:
                value = codec.loads(raw)
            except codec.BadValue as error:
                raise unreadable(self.name, error) from None
        return change.convert(value) if change is not None and self.name == "state" else value

    def encode(self, value: Any) -> bytes:
        """From what `capture` gives."""
        return bytes(value) if self._raw else codec.dumps(value)

    def reset(self) -> None:
        """Nothing: `worker.initial` is where its author begins anew."""
