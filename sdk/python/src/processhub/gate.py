"""Who may run now: clients' requests against the state machine of the contract."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Callable, Iterator, Optional, TypeVar

from .contract import WorkerState
from .machine import Machine

T = TypeVar("T")


class Closed(Exception):
    """A client's request that was not executed, with the state to answer it with."""

    def __init__(self, state: WorkerState) -> None:
        super().__init__(f"the worker is {state.value}")
        self.state = state


class Gate:
    """The machine together with the requests that run under it. Both change under one lock, so that no request slips in
    between the look at the state and the count."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._machine = Machine()
        self._running = 0
        self._stopping = False
        self._thread = threading.local()

    def machine(self, work: Callable[[Machine], T]) -> T:
        """Looks at or changes the machine."""
        with self._changed:
            try:
                return work(self._machine)
            finally:
                self._changed.notify_all()

    @property
    def state(self) -> WorkerState:
        """What the worker is doing."""
        return self._machine.state

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Lets something run that may change the state; a suspend waits for its end. Raises `Closed`, but not within
        `inside`: what was let in may finish."""
        if getattr(self._thread, "inside", False):
            yield
            return
        with self._changed:
            closed = WorkerState.SUSPENDED if self._stopping else self._machine.closed_to_clients()
            if closed is not None:
                raise Closed(closed)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread runs what was let in."""
        before = getattr(self._thread, "inside", False)
        self._thread.inside = True
        try:
            yield
        finally:
            self._thread.inside = before

    def drained(self, epoch: int) -> bool:
        """Waits until all that was let in before a suspend is done; True when the suspend's work is to be done now.
        Refused as stale when another command came."""
        with self._changed:
            while True:
                run = self._machine.drained(epoch)
                if not run or self._running == 0:
                    return run
                self._changed.wait()

    def stop(self, grace: float) -> None:
        """Lets nothing in any more, and waits at most so many seconds for what runs."""
        with self._changed:
            self._stopping = True
            self._changed.wait_for(lambda: self._running == 0, grace)

    def why_closed(self) -> Optional[WorkerState]:
        """None when something may run now."""
        return self._machine.closed_to_clients()
