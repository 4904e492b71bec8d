"""Carries out the commands of the contract: asks the machine, does the work, tells the machine."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Dict, List, Optional

from .captures import Capture, Captures
from .contract import (
    CONTRACT_VERSION,
    Activation,
    ApplyRequest,
    CaptureRequest,
    CodeChangeRequest,
    ConsentRequest,
    Direction,
    Down,
    OldVsn,
    Reason,
)
from .errors import CannotAccept, Code, Refusal, refusal_of
from .gate import Gate
from .imports import Import
from .loader import Loader

if TYPE_CHECKING:
    from .worker import Worker

class Core:
    """A worker with everything that the contract asks of it."""

    def __init__(self, worker: "Worker", loader: Optional[Loader] = None) -> None:
        self.gate = Gate()
        self.worker = worker
        """The code that runs now; a code change puts another in its place while nothing runs."""
        self.instance = os.urandom(16).hex()
        self._loader = loader
        self._import = Import()
        self._captures = Captures(self.instance)
        # Held while one command does its work: the author's hooks are called one at a time.
        self._alone = threading.Lock()
        worker.attach(self.gate)

    def info(self) -> Dict[str, object]:
        """Never waits for the author's code, except for `load`."""
        worker = self.worker
        state, epoch = self.gate.machine(lambda machine: (machine.state, machine.epoch))
        return {
            "contract": CONTRACT_VERSION,
            "instance": self.instance,
            "vsn": worker.vsn,
            "state": state.value,
            "epoch": epoch,
            "seq": worker.clock.seq,
            "capture": "Live" if worker.live else "Suspended",
            "acceptsFrom": list(worker.accepts_from),
            "deltaFrom": worker.delta_from,
            "load": worker.current_load(),
            "consent": worker.consent_handler is not None,
        }

    def suspend(self, epoch: int, reason: Reason) -> None:
        """Returns once the state can no longer change."""
        with self._alone:
            self.gate.machine(lambda machine: machine.suspend(epoch))
        self.gate.drained(epoch)
        with self._alone:
            if not self.gate.machine(lambda machine: machine.drained(epoch)):
                return
            worker = self.worker
            try:
                worker.run_hooks(worker.suspend_hooks, "on_suspend", reason)
                # Whatever the worker did to its state by itself ended here.
                worker.clock.settle()
            except Exception as error:
                self.gate.machine(lambda machine: machine.suspended(epoch, False))
                raise refusal_of(error, "on_suspend", Code.INTERNAL) from error
            worker.clock.writable = False
            self.gate.machine(lambda machine: machine.suspended(epoch, True))

    def resume(self, epoch: int) -> None:
        """Serves again."""
        with self._alone:
            if self.gate.machine(lambda machine: machine.resume(epoch)):
                # The captures go first: from here on the state is no longer what they say.
                self._captures.clear()
                worker = self.worker
                worker.clock.writable = True
                try:
                    worker.run_hooks(worker.resume_hooks, "on_resume")
                finally:
                    # A hook that fails keeps nobody from being served: nothing ever stays suspended.
                    self.gate.machine(lambda machine: machine.resumed(epoch))

    def capture(self, request: CaptureRequest) -> Optional[Capture]:
        """None: nothing changed since `unlessSeq`."""
        with self._alone:
            worker = self.worker
            self.gate.machine(lambda machine: machine.capture(request.epoch, worker.live))
            if not worker.parts:
                raise Refusal(Code.NO_STATE, "this worker has no state")
            with worker.clock.lock:
                suspended = not worker.clock.writable
                seq = worker.clock.seq if suspended else worker.clock.settle()
                if request.unless_seq == seq:
                    return None
                since = worker.base(request.since)
                held = self._captures.same(seq, since)
                if held is not None:
                    return held
                parts: Dict[str, List[bytes]] = {}
                for part in worker.parts.values():
                    lines = part.lines(since)
                    if lines is not None:
                        parts[part.name] = lines
            return self._captures.hold(seq, worker.vsn, since, parts, suspended or worker.deltas)

    def read(self, capture: str, part: str) -> List[bytes]:
        """The bytes of one part."""
        return self._captures.read(capture, part)

    def delete_capture(self, capture: str) -> Dict[str, object]:
        """Forgets a capture."""
        return self._captures.delete(capture)

    def upload(self) -> None:
        """Whether slices are taken."""
        self.gate.machine(lambda machine: machine.upload())

    def put(self, name: str, part: str, offset: int, piece: bytes) -> None:
        """Takes one slice."""
        with self._alone:
            self.upload()
            self._import.put(name, part, offset, piece)

    def apply(self, name: str, request: ApplyRequest) -> None:
        """Makes what was uploaded the worker's state, whole or not at all."""
        with self._alone:
            if not self.gate.machine(lambda machine: machine.apply(name, request)):
                return
            worker = self.worker
            self._accepts(request)
            raw = self._import.complete(name, request.parts)
            change = None
            if request.vsn != worker.vsn:
                change = worker.change(_old_vsn(request.vsn, request.direction), json.loads(request.extra))
            if request.reason is Reason.MERGE:
                raw, change = worker.merged(raw, change), None
            decoded = worker.decode(raw, change, request.since is not None)
            if request.dry_run:
                return
            try:
                decoded(request.seq)
            except Exception:
                # Parts that are restored by hand may have got half a state: it must never pass for one.
                self.gate.machine(lambda machine: machine.unapplied())
                raise
            self._import.clear()
            self.gate.machine(lambda machine: machine.applied(name, request))

    def _accepts(self, request: ApplyRequest) -> None:
        vsn, own, others = request.vsn, self.worker.vsn, self.worker.accepts_from
        if request.since is not None and (vsn not in self.worker.delta_from or request.reason is Reason.MERGE):
            message = f"no delta of version `{vsn}` is taken here: send a whole state without `since`"
            raise Refusal(Code.WRONG_BASE, message)
        if vsn != own and vsn not in others:
            known = ", ".join(others)
            message = f"the state is of version `{vsn}`, this worker is `{own}` and accepts [{known}]"
            raise CannotAccept(f"{message}: add it to accepts_from")

    def delete_import(self, name: str) -> None:
        """Forgets what was uploaded."""
        with self._alone:
            self._import.delete(name)

    def activate(self, activation: Activation) -> None:
        """Begins to serve; on a worker that does, renews the epoch."""
        with self._alone:
            epoch, initial = activation.epoch, activation.initial
            if not self.gate.machine(lambda machine: machine.activate(epoch, initial)):
                return
            worker = self.worker
            worker.activation = activation
            worker.clock.writable = True
            try:
                if initial:
                    worker.reset()
                    worker.run_hooks(worker.initial_hooks, "initial", activation)
                worker.run_hooks(worker.activate_hooks, "on_activate", activation)
                worker.clock.settle()
            except Exception:
                worker.clock.writable = False
                raise
            self._import.clear()
            self.gate.machine(lambda machine: machine.activated(epoch))

    def consent(self, request: ConsentRequest) -> bool:
        """Whether the worker can be moved now."""
        worker = self.worker
        handler = worker.consent_handler
        if handler is None:
            raise Refusal(Code.NOT_FOUND, "this worker is not asked for its consent")
        self.gate.machine(lambda machine: machine.consent())
        try:
            with worker.clock.transaction(changes=False):
                return bool(handler(request))
        except Exception as error:
            raise refusal_of(error, "the consent handler", Code.INTERNAL) from error

    def code_change(self, request: CodeChangeRequest) -> None:
        """Puts the code of another version in the place of this one, with the state; or changes nothing."""
        with self._alone:
            old = self.worker
            if self._loader is None or old.behind_wsgi:
                message = "this worker cannot load code while it runs: give Worker(module=__name__) or run(code=...)"
                raise Refusal(Code.NOT_FOUND, f"{message}, without WSGI; or use another upgrade strategy")
            if not self.gate.machine(lambda machine: machine.code_change(request)):
                return
            if request.origin != old.vsn:
                message = f"this worker runs version `{old.vsn}`, not `{request.origin}`"
                raise CannotAccept(f"{message}: read its `vsn` again")
            new, undo = self._loader(request.to)
            try:
                _replace(old, new, request)
            except Exception:
                undo()
                raise
            self._captures.clear()
            new.attach(self.gate)
            old.detach()
            self.worker = new
            self.gate.machine(lambda machine: machine.code_changed(request))


def _replace(old: "Worker", new: "Worker", request: CodeChangeRequest) -> None:
    """Gives the old code's state to the new code."""
    if new.vsn != request.to:
        message = f"the code that was loaded is version `{new.vsn}`, not `{request.to}`"
        raise CannotAccept(f"{message}: bring the new code to the worker first")
    if old.vsn != new.vsn and old.vsn not in new.accepts_from:
        message = f"version `{new.vsn}` does not accept states of `{old.vsn}`"
        raise CannotAccept(f"{message}: add it to accepts_from")
    raw = {part.name: b"".join(part.lines(None) or []) for part in old.parts.values()}
    same = old.vsn == new.vsn
    change = None if same else new.change(_old_vsn(old.vsn, request.direction), json.loads(request.extra))
    # Above the old number, so that nobody takes a delta of the new form on the old one.
    new.decode(raw, change, False)(old.clock.seq + 1)
    new.activation = old.activation


def _old_vsn(vsn: str, direction: Direction) -> OldVsn:
    return Down(vsn) if direction is Direction.DOWN else vsn
