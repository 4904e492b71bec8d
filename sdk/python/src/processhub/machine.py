"""The worker's side of the contract as a pure state machine.

    start or restart -> STANDBY --activate(e)--> ACTIVE --suspend(e')--> SUSPENDED --SIGTERM--> gone
                          ^ import, apply          ^-------resume(e'')-------'

A command goes through in two steps: first it is asked for (`suspend`, `resume`, `activate`, `apply`), which says whether
there is work to do (True) or whether it is already in effect (False); then the outcome of the work is told (`suspended`,
`resumed`, `activated`, `applied`). Who runs it does one command's work at a time; only the draining of requests between
`suspend` and `drained` may overlap with other commands."""

from __future__ import annotations

import enum
from typing import Optional, Tuple

from .contract import ApplyRequest, CodeChangeRequest, Reason, WorkerState
from .errors import Code, Refusal


class _Phase(enum.Enum):
    STANDBY = enum.auto()
    ACTIVE = enum.auto()
    SUSPENDING = enum.auto()
    """No client is admitted any more; those that were still run."""
    SUSPENDED = enum.auto()


class _Command(enum.Enum):
    SUSPEND = enum.auto()
    RESUME = enum.auto()
    ACTIVATE = enum.auto()


_STATES = {
    _Phase.STANDBY: WorkerState.STANDBY,
    _Phase.ACTIVE: WorkerState.ACTIVE,
    # It is draining: its state can change.
    _Phase.SUSPENDING: WorkerState.ACTIVE,
    _Phase.SUSPENDED: WorkerState.SUSPENDED,
}


class Machine:
    """A worker's state, the highest epoch that it has seen, and the command that used the last one."""

    def __init__(self) -> None:
        self._phase = _Phase.STANDBY
        self._highest = 0
        self._used: Optional[Tuple[_Command, int]] = None
        self._applied: Optional[Tuple[str, ApplyRequest]] = None
        self._changed: Optional[CodeChangeRequest] = None

    @property
    def state(self) -> WorkerState:
        """What the worker is doing. One that is draining is still Active."""
        return _STATES[self._phase]

    @property
    def epoch(self) -> int:
        """Highest epoch seen; 0 after a start."""
        return self._highest

    def closed_to_clients(self) -> Optional[WorkerState]:
        """None when a client's request may run now, else the state to answer it with."""
        if self._phase is _Phase.ACTIVE:
            return None
        return WorkerState.STANDBY if self._phase is _Phase.STANDBY else WorkerState.SUSPENDED

    def suspend(self, epoch: int) -> bool:
        """From the moment of True no client is admitted; when those that were are done, ask `drained`."""
        self._see(epoch)
        if self._phase is _Phase.STANDBY:
            raise self._wrong_state("`suspend` is for an active worker: activate it first")
        self._claim(_Command.SUSPEND, epoch)
        if self._phase is _Phase.SUSPENDED:
            return False
        self._phase = _Phase.SUSPENDING
        return True

    def drained(self, epoch: int) -> bool:
        """All requests of a suspending worker are done: True when its work is to be done now, False when somebody else
        asked for the same and it is. Refused as stale when another command came in the meantime."""
        if self._used == (_Command.SUSPEND, epoch):
            if self._phase is _Phase.SUSPENDING:
                return True
            if self._phase is _Phase.SUSPENDED:
                return False
        raise self._stale(epoch)

    def suspended(self, epoch: int, done: bool) -> None:
        """The work of a suspend is done, or failed, which leaves the worker active and the epoch free for a repeat."""
        if self._used != (_Command.SUSPEND, epoch) or self._phase is not _Phase.SUSPENDING:
            return
        if done:
            self._phase = _Phase.SUSPENDED
        else:
            self._phase = _Phase.ACTIVE
            self._used = None

    def resume(self, epoch: int) -> bool:
        """A suspend that is not through yet is called off at once."""
        self._see(epoch)
        if self._phase is _Phase.STANDBY:
            raise self._wrong_state("`resume` is for a suspended worker: activate this one")
        if self._phase is _Phase.SUSPENDED:
            self._free(_Command.RESUME, epoch)
            return True
        self._claim(_Command.RESUME, epoch)
        self._phase = _Phase.ACTIVE
        return False

    def resumed(self, epoch: int) -> None:
        """The work of a resume is done: clients are admitted."""
        if self._phase is _Phase.SUSPENDED:
            self._claim(_Command.RESUME, epoch)
            self._phase = _Phase.ACTIVE
            self._changed = None

    def activate(self, epoch: int, initial: bool) -> bool:
        """The only way out of Standby. On an active worker it only renews the epoch."""
        self._see(epoch)
        if self._phase in (_Phase.SUSPENDING, _Phase.SUSPENDED):
            raise self._wrong_state("`activate` is for a worker in Standby: resume this one")
        if self._phase is _Phase.ACTIVE:
            self._claim(_Command.ACTIVATE, epoch)
            return False
        if initial and self._applied is not None:
            message = "`initial` is true and a state was applied, which would be dropped: send false"
            raise Refusal(Code.INITIAL_MISMATCH, message)
        if not initial and self._applied is None:
            message = "`initial` is false and no state was applied: apply one, or send true to begin with an empty one"
            raise Refusal(Code.INITIAL_MISMATCH, message)
        self._free(_Command.ACTIVATE, epoch)
        return True

    def activated(self, epoch: int) -> None:
        """The work of an activate is done: clients are admitted."""
        if self._phase is _Phase.STANDBY:
            self._claim(_Command.ACTIVATE, epoch)
            self._phase = _Phase.ACTIVE
            self._applied = None

    def capture(self, epoch: int, live: bool) -> None:
        """Whether the worker can be captured now: suspended, or while it serves where it can do that."""
        self._see(epoch)
        if self._phase is _Phase.SUSPENDED:
            return
        if self._phase is _Phase.STANDBY:
            raise self._wrong_state("it has no state of its own to capture: activate it first")
        if not live:
            raise self._wrong_state("this worker is captured only while suspended: suspend it first")

    def code_change(self, request: CodeChangeRequest) -> bool:
        """The code is changed only under a suspended worker."""
        self._see(request.epoch)
        if self._phase is not _Phase.SUSPENDED:
            raise self._wrong_state("code is changed only while suspended: suspend it first")
        return self._changed != request

    def code_changed(self, request: CodeChangeRequest) -> None:
        """The work of a code change is done: the worker runs the other code."""
        self._changed = request

    def consent(self) -> None:
        """Whether the worker can be asked for its consent."""
        if self._phase is not _Phase.ACTIVE:
            raise self._wrong_state("only an active worker is asked for its consent")

    def upload(self) -> None:
        """Whether slices are taken."""
        if self._phase is not _Phase.STANDBY:
            raise self._wrong_state("only a worker in Standby takes a state: restart it to replace its own")

    def apply(self, name: str, request: ApplyRequest) -> bool:
        """A delta is taken on exactly the number that it builds on."""
        self._see(request.epoch)
        self.upload()
        if self._applied == (name, request):
            return False
        if request.since is not None:
            base = None if self._applied is None else self._applied[1].seq
            if base != request.since:
                held = "nothing" if base is None else f"number {base}"
                message = f"a delta on {request.since}, this worker holds {held}: send a whole state"
                raise Refusal(Code.WRONG_BASE, message)
        elif request.reason is Reason.MERGE and self._applied is None:
            raise Refusal(Code.WRONG_BASE, "nothing to merge with: apply the process's own state first")
        return True

    def applied(self, name: str, request: ApplyRequest) -> None:
        """The work of an apply is done: its state is the worker's. Not to be told of a dry run."""
        self._applied = (name, request)

    def unapplied(self) -> None:
        """An apply failed after it began to replace the state: the worker holds none."""
        self._applied = None

    def _see(self, epoch: int) -> None:
        if epoch < self._highest:
            raise self._stale(epoch)
        self._highest = epoch

    def _free(self, command: _Command, epoch: int) -> None:
        if self._used is not None and self._used[1] == epoch and self._used[0] is not command:
            raise self._stale(epoch)

    def _claim(self, command: _Command, epoch: int) -> None:
        self._free(command, epoch)
        self._used = (command, epoch)

    def _stale(self, epoch: int) -> Refusal:
        message = f"epoch {epoch} is used up, {self._highest} was seen: send the command at a new epoch"
        return Refusal(Code.STALE_EPOCH, message, state=self.state.value, epoch=self._highest)

    def _wrong_state(self, remedy: str) -> Refusal:
        message = f"the worker is {self.state.value}; {remedy}"
        return Refusal(Code.WRONG_STATE, message, state=self.state.value, epoch=self._highest)
