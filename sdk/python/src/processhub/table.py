"""The parts `table.<name>`: keys with values, of which each remembers when it changed.

As bytes a table is one line of JSON for each row, `["key",value]`; in a delta a row that is gone is `["key"]`."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import Any, Callable, Dict, Generic, Iterator, List, MutableMapping, Optional, Tuple, TypeVar, Union, cast

from . import codec
from .clock import Clock
from .contract import OldVsn
from .errors import Code, refusal_of
from .parts import Change, Install, unreadable

V = TypeVar("V")
D = TypeVar("D")

MAX_GONE = 100_000
"""Rows that are gone and still remembered for deltas. With more, the next delta is a whole state instead."""


class _Drop:
    """What a converter returns for a row that the other version has no use for."""


DROP = _Drop()
"""Returned by a row's converter: the row is left out."""

Converter = Callable[[OldVsn, str, Any, Any], object]


class Table(MutableMapping[str, V], Generic[V]):
    """A part `table.<name>`, used like a dict with texts as keys.

    A value is kept as JSON: reading gives a copy, and a change of that copy is not a change of the table. Put it back, or
    use `with table.edit(key) as value`. In return a capture while the worker serves, and a delta, cost what changed and
    nothing else."""

    def __init__(self, name: str, clock: Clock, of: object = None) -> None:
        self.name = name
        self._clock = clock
        self._decoder: Callable[[Any], Any] = codec.decoder(object if of is None else of)
        self._convert: Optional[Converter] = None
        self._rows: Dict[str, bytes] = {}
        # Each key that changed or went since `_floor`, with the number of its last change, oldest first.
        self._changed: OrderedDict[str, int] = OrderedDict()
        self._gone = 0
        self._floor = 0

    def convert(self, handler: Converter) -> Converter:
        """Decorates what makes a row of this version out of another version's: `(old_vsn, key, value, extra) -> value`,
        or `DROP`. Rows are converted one by one, so that deltas of another version are taken too."""
        self._convert = handler
        return handler

    def __getitem__(self, key: str) -> V:
        return cast(V, self._decoder(codec.loads(self._rows[key])[1]))

    def __setitem__(self, key: str, value: V) -> None:
        line = self._line(key, value)
        with self._clock.transaction(changes=False):
            if self._rows.get(key) != line:
                self._change(key, line)

    def __delitem__(self, key: str) -> None:
        with self._clock.transaction(changes=False):
            if key not in self._rows:
                raise KeyError(key)
            self._change(key, None)
            self._gone += 1
            if self._gone > MAX_GONE:
                self._forget(self._clock.pending())

    def __iter__(self) -> Iterator[str]:
        with self._clock.lock:
            return iter(list(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    @contextmanager
    def edit(self, key: str, default: Union[Callable[[], V], None] = None) -> Iterator[V]:
        """The value of a row, to be changed in place; it is put back at the end, unless that raises. A row that is not
        there begins with `default()`."""
        with self._clock.transaction(changes=False):
            value = default() if default is not None and key not in self._rows else self[key]
            yield value
            self[key] = value

    def _line(self, key: str, value: object) -> bytes:
        if not isinstance(key, str):
            raise TypeError(f"a key of a table must be a text, not {type(key).__name__}")
        ready = codec.plain(value)
        # What could not be read back would be refused by the next owner, when it is too late.
        self._decoder(ready)
        return codec.dumps([key, ready]) + b"\n"

    def _change(self, key: str, line: Optional[bytes]) -> None:
        before = self._rows.get(key)
        self._changed[key] = self._clock.next()
        self._changed.move_to_end(key)
        self._put(key, line)
        # An undone change still counts as one: the row is sent again, as it was.
        self._clock.undo_with(lambda: self._put(key, before))

    def _put(self, key: str, line: Optional[bytes]) -> None:
        if line is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = line

    def _forget(self, floor: int) -> None:
        self._changed.clear()
        self._gone = 0
        self._floor = floor

    @property
    def floor(self) -> Optional[int]:
        """The lowest number on which a delta is still known."""
        return self._floor

    def lines(self, since: Optional[int]) -> Optional[List[bytes]]:
        """Its rows, or those that changed after `since`."""
        if since is None:
            return list(self._rows.values())
        changed: List[bytes] = []
        for key, number in reversed(self._changed.items()):
            if number <= since:
                break
            changed.append(self._rows.get(key) or codec.dumps([key]) + b"\n")
        return changed or None

    def decode(self, raw: bytes, delta: bool, change: Optional[Change]) -> Install:
        """Reads and converts all rows, and changes nothing yet."""
        rows = self._read(raw, delta, change)

        def install(seq: int) -> None:
            if not delta:
                self._rows = {}
            for key, line in rows:
                self._put(key, line)
            self._forget(seq)

        return install

    def _read(self, raw: bytes, delta: bool, change: Optional[Change]) -> List[Tuple[str, Optional[bytes]]]:
        rows: List[Tuple[str, Optional[bytes]]] = []
        for number, line in enumerate(raw.split(b"\n")):
            if line:
                try:
                    rows.append(self._row(line, delta, change))
                except (codec.BadValue, TypeError, ValueError) as error:
                    why = error if isinstance(error, codec.BadValue) else type(error).__name__
                    raise unreadable(self.name, codec.BadValue(f"line {number + 1}: {why}")) from error
        return rows

    def plain(self, raw: bytes, change: Optional[Change]) -> Any:
        """Its rows as a dict of JSON values."""
        rows = self._read(raw, False, change)
        return {key: codec.loads(line)[1] for key, line in rows if line is not None}

    def encode(self, value: Any) -> bytes:
        """From a dict of rows."""
        return b"".join(self._line(key, row) for key, row in value.items())

    def _row(self, line: bytes, delta: bool, change: Optional[Change]) -> Tuple[str, Optional[bytes]]:
        row = codec.loads(line)
        if not isinstance(row, list) or not row or not isinstance(row[0], str) or len(row) > 2:
            raise codec.BadValue("not [key, value]")
        key = row[0]
        if len(row) == 1:
            if not delta:
                raise codec.BadValue("a row that is gone, in a whole state")
            return key, None
        value = row[1]
        if change is not None and self._convert is not None:
            try:
                value = codec.plain(self._convert(change.old_vsn, key, value, change.extra))
            except Exception as error:
                raise refusal_of(error, f"the converter of part `{self.name}`", Code.CANNOT_ACCEPT) from error
            if value is DROP:
                return key, None
        return key, self._line(key, value)

    def reset(self) -> None:
        """Begins with no rows."""
        self._rows = {}
        self._forget(0)
