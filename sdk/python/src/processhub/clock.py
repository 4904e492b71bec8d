"""The number of the present state, and the lock under which it changes."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Callable, Iterator, List

from .errors import NotActive


class Clock:
    """Counts changes. Everything that changes in one transaction gets the same number, so that a capture never falls
    between two changes that belong together; a transaction that raises changes nothing that is tracked."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.writable = False
        """Whether the state may change: while the worker is Active, and in the hooks of its activation."""
        self._seq = 0
        self._depth = 0
        self._dirty = False
        self._settlers: List[Callable[[], None]] = []
        self._undoers: List[Callable[[], None]] = []
        self._undo: List[Callable[[], None]] = []

    @property
    def seq(self) -> int:
        """Number of the last change. Never waits."""
        return self._seq

    def set(self, seq: int) -> None:
        """The state was replaced by one with this number."""
        with self.lock:
            self._seq = seq
            self._dirty = False

    def on_settle(self, settle: Callable[[], None], undo: Callable[[], None]) -> None:
        """Calls `settle` at the end of each transaction, for changes that nobody told of, or else `undo`."""
        self._settlers.append(settle)
        self._undoers.append(undo)

    def next(self) -> int:
        """The number of the change that is being made now."""
        if not self.writable:
            raise NotActive("the state changes only while the worker is Active: use worker.transaction()")
        return self.pending()

    def pending(self) -> int:
        """The number that a change which was found afterwards gets."""
        self._dirty = True
        return self._seq + 1

    def undo_with(self, undo: Callable[[], None]) -> None:
        """How the last change is taken back, should its transaction raise."""
        if self._depth > 0:
            self._undo.append(undo)

    @contextmanager
    def transaction(self, changes: bool = True) -> Iterator[None]:
        """Alone, as one change. `changes=False` promises that nothing changes but what says so by itself."""
        with self.lock:
            self._depth += 1
            try:
                yield
            except BaseException:
                if self._depth == 1:
                    self._take_back()
                raise
            else:
                if self._depth == 1 and changes:
                    self._find()
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._undo.clear()
                    if self._dirty:
                        self._seq += 1
                        self._dirty = False

    def settle(self) -> int:
        """Counts what changed outside of a transaction, if anything did, and gives the number of the state."""
        with self.transaction():
            pass
        return self._seq

    def _find(self) -> None:
        try:
            for settle in self._settlers:
                settle()
        except BaseException:
            self._take_back()
            raise

    def _take_back(self) -> None:
        while self._undo:
            self._undo.pop()()
        for undo in self._undoers:
            undo()
