"""The part `state`: one value, a dataclass or plain JSON, that handlers change as they like."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Generic, List, Optional, TypeVar, cast

from . import codec
from .clock import Clock
from .parts import Change, Install, unreadable

S = TypeVar("S")


class State(Generic[S]):
    """The part `state`. `value` is an ordinary object; whether it changed is found by comparing its JSON at the end of
    each request that may change something, so keep it small and put what grows into tables. A change that this version
    could not read back is undone and raised."""

    def __init__(self, initial: Callable[[], S], clock: Clock) -> None:
        self.name = "state"
        self.value: S = initial()
        """The state. Change it in place or put another one in its place."""
        self._initial = initial
        self._clock = clock
        self._encoded = codec.dumps(self.value)
        self._changed = 0
        kind = type(self.value)
        checked = dataclasses.is_dataclass(kind) or kind in (dict, list)
        self._decoder = codec.decoder(kind if checked else object)
        clock.on_settle(self._settle, self._undo)

    def _settle(self) -> None:
        try:
            encoded = codec.dumps(self.value)
            if encoded == self._encoded:
                return
            # What could not be read back would be refused by the next owner, when it is too late.
            self._decoder(codec.loads(encoded))
        except Exception:
            self._undo()
            raise
        self._encoded = encoded
        self._changed = self._clock.pending()

    def _undo(self) -> None:
        self.value = cast(S, self._decoder(codec.loads(self._encoded)))

    @property
    def floor(self) -> Optional[int]:
        """Every delta is known: it is the whole value, or nothing."""
        return 0

    def lines(self, since: Optional[int]) -> Optional[List[bytes]]:
        """Its JSON, whole if it changed."""
        if since is not None and self._changed <= since:
            return None
        return [self._encoded]

    def decode(self, raw: bytes, delta: bool, change: Optional[Change]) -> Install:
        """Makes a value out of JSON, by the type of the initial one."""
        try:
            decoded = cast(S, self._decoder(self.plain(raw, change)))
            encoded = codec.dumps(decoded)
        except (codec.BadValue, TypeError, ValueError) as error:
            raise unreadable(self.name, error) from error

        def install(seq: int) -> None:
            self.value, self._encoded, self._changed = decoded, encoded, seq

        return install

    def plain(self, raw: bytes, change: Optional[Change]) -> Any:
        """Its JSON value, in this version's form."""
        try:
            value = codec.loads(raw)
        except codec.BadValue as error:
            raise unreadable(self.name, error) from None
        return value if change is None else change.convert(value)

    def encode(self, value: Any) -> bytes:
        """Its JSON."""
        return codec.dumps(value)

    def reset(self) -> None:
        """Begins with the initial value."""
        self.value = self._initial()
        self._encoded = codec.dumps(self.value)
        self._changed = 0
