"""What an author of a worker uses: a worker with its state, its handlers and its hooks."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type, TypeVar, overload

from .clients import Route, Routes
from .clock import Clock
from .contract import MAX_TEXT, MAX_VERSIONS, Activation, ConsentRequest, OldVsn, Reason, part_name
from .errors import CannotAccept, Code, NotActive, refusal_of
from .gate import Closed, Gate
from .parts import Change, Install, ManualPart, Part
from .state import State
from .steps import Convert, Steps
from .table import Table
from .wsgi import Wsgi, guarded

S = TypeVar("S")
V = TypeVar("V")
P = TypeVar("P", bound=Part)
H = TypeVar("H", bound=Callable[..., Any])

CodeChange = Callable[[OldVsn, Any, Any], object]
Merge = Callable[[Dict[str, Any], Dict[str, Any]], Dict[str, Any]]


def _version(text: str) -> None:
    if len(text.encode()) > MAX_TEXT:
        raise ValueError(f"a version has at most {MAX_TEXT} bytes")


class Worker:
    """One process: its state, what its clients may ask, and what happens at the turns of its life.

        worker = Worker(vsn="1")
        account = worker.state(Account)

        @worker.post("/deposit")
        def deposit(request: Request) -> object: ...

        if __name__ == "__main__":
            worker.run()

    `vsn`: version of the code, as `spec.vsn` of the hub has it. `accepts_from`: other versions whose states this one
    takes. `drops`: parts of other versions that this one has no use for; any other unknown part is refused. `module`:
    pass `__name__`, so that a code change in the running process can load this module anew.

    Clients' handlers run one at a time, as the messages of a process do, unless they are `concurrent`. What a handler
    changed in the state and the tables is undone if it raises."""

    def __init__(
        self,
        vsn: str = "",
        accepts_from: Sequence[str] = (),
        drops: Sequence[str] = (),
        module: Optional[str] = None,
    ) -> None:
        if len(accepts_from) >= MAX_VERSIONS:
            raise ValueError(f"accepts_from has {len(accepts_from)} versions, fewer than {MAX_VERSIONS} are allowed")
        for text in (vsn, *accepts_from):
            _version(text)
        self.vsn = vsn
        self.steps = Steps(vsn)
        self._accepts_from = tuple(accepts_from)
        self.module = module
        self.clock = Clock()
        self.parts: Dict[str, Part] = {}
        self.routes = Routes()
        self.activation: Optional[Activation] = None
        """What the worker was told when it began to serve: epoch, configuration, labels."""
        self.code_change_handler: Optional[CodeChange] = None
        self.merge_handler: Optional[Merge] = None
        self.consent_handler: Optional[Callable[[ConsentRequest], object]] = None
        self.initial_hooks: List[Callable[[Activation], object]] = []
        self.activate_hooks: List[Callable[[Activation], object]] = []
        self.suspend_hooks: List[Callable[[Reason], object]] = []
        self.resume_hooks: List[Callable[[], object]] = []
        self._load: Optional[Callable[[], int]] = None
        self._drops = frozenset(drops)
        self._manual_live = True
        self.gate: Optional[Gate] = None
        self.behind_wsgi = False
        """Whether clients are served by an application that a code change cannot exchange."""
        self._hooked = threading.local()

    # The state.

    def state(self, initial: Callable[[], S]) -> State[S]:
        """The part `state`, which begins as `initial()`: a dataclass, or whatever is JSON."""
        return self._add(State(initial, self.clock))

    @overload
    def table(self, name: str) -> Table[Any]: ...

    @overload
    def table(self, name: str, of: Type[V]) -> Table[V]: ...

    def table(self, name: str, of: Optional[Type[Any]] = None) -> Table[Any]:
        """The part `table.<name>`, whose values are dataclasses `of` this type, or whatever is JSON."""
        return self._add(Table(f"table.{name}", self.clock, of))

    def dictionary(self) -> Table[Any]:
        """The part `dictionary`: odds and ends that move along."""
        return self._add(Table("dictionary", self.clock))

    def part(self, name: str, raw: bool = False, live: bool = False) -> ManualPart:
        """A part that handlers of its own capture and restore, as JSON or as `raw` bytes. `live` promises that the handler
        gives one point in time also between two requests, so that a worker need not be suspended for it."""
        self._manual_live = self._manual_live and live
        return self._add(ManualPart(name, self.clock, raw))

    def _add(self, part: P) -> P:
        try:
            part_name(part.name)
        except Exception as error:
            raise ValueError(str(error)) from None
        if part.name in self.parts:
            raise ValueError(f"part `{part.name}` is there already: give each part a name of its own")
        self.parts[part.name] = part
        return part

    # What clients may ask.

    def route(self, method: str, path: str, *, concurrent: bool = False, probe: bool = False) -> Callable[[H], H]:
        """Decorates the handler of a client's request. `{name}` in the path is a parameter. A `concurrent` handler runs
        beside others and changes the state within `worker.transaction()`. A `probe` is answered in every state."""

        def decorate(handler: H) -> H:
            self.routes.add(Route(method, path, handler, concurrent or probe, probe))
            return handler

        return decorate

    def get(self, path: str, *, concurrent: bool = False, probe: bool = False) -> Callable[[H], H]:
        """`route("GET", path)`. HEAD is answered too."""
        return self.route("GET", path, concurrent=concurrent, probe=probe)

    def post(self, path: str, *, concurrent: bool = False) -> Callable[[H], H]:
        """`route("POST", path)`."""
        return self.route("POST", path, concurrent=concurrent)

    def put(self, path: str, *, concurrent: bool = False) -> Callable[[H], H]:
        """`route("PUT", path)`."""
        return self.route("PUT", path, concurrent=concurrent)

    def delete(self, path: str, *, concurrent: bool = False) -> Callable[[H], H]:
        """`route("DELETE", path)`."""
        return self.route("DELETE", path, concurrent=concurrent)

    def wsgi(self, application: Wsgi, concurrent: bool = False, probes: Sequence[str] = ()) -> Wsgi:
        """A WSGI application, such as one of Flask or Django, behind the gate of this worker: to be served on
        `PROCESSHUB_LISTEN` by any server with threads. Requests run one at a time unless it is `concurrent`, and then
        change the state within `worker.transaction()`. `probes` are paths that are answered in every state."""
        self.behind_wsgi = True
        return guarded(self, application, concurrent, tuple(probes))

    # The turns of its life.

    def code_change(self, handler: Callable[[OldVsn, Any, Any], object]) -> CodeChange:
        """Decorates `code_change(old_vsn, state, extra) -> state`, which makes the part `state` of another version one of
        this version. `old_vsn` is a text, or `Down(vsn)` when this code is the older one. It changes nothing by itself:
        it is called for a mere trial too. `CannotAccept` leaves the old code running with its state."""
        self.code_change_handler = handler
        return handler

    def step(self, origin: str, to: str) -> Callable[[Convert], Convert]:
        """Decorates `convert(state, extra) -> state`, which makes the part `state` of the version `origin` one of `to`, up
        or down. A state of a version further away takes the shortest way through those between, so that nobody writes 1
        to 3 who has 1 to 2 and 2 to 3; `accepts_from` then has these versions by itself. Where there is a way it is taken
        instead of `code_change`, whose rules it has."""

        def decorate(convert: Convert) -> Convert:
            _version(origin)
            _version(to)
            self.steps.add(origin, to, convert)
            if len(self.accepts_from) >= MAX_VERSIONS:
                raise ValueError(f"states of {MAX_VERSIONS} versions and more would be taken: fewer are allowed")
            return convert

        return decorate

    def merge(self, handler: Merge) -> Merge:
        """Decorates `merge(own, other) -> parts`, which makes one state of two incarnations' after a division of the
        cluster. Both are parts by name, as JSON values (`state`) and dicts (tables). It changes nothing by itself."""
        self.merge_handler = handler
        return handler

    def consent(self, handler: Callable[[ConsentRequest], object]) -> Callable[[ConsentRequest], object]:
        """Decorates what says whether the worker can be moved now: true, or false to be asked later."""
        self.consent_handler = handler
        return handler

    def initial(self, hook: Callable[[Activation], object]) -> Callable[[Activation], object]:
        """Decorates what fills the state of a process that begins."""
        self.initial_hooks.append(hook)
        return hook

    def on_activate(self, hook: Callable[[Activation], object]) -> Callable[[Activation], object]:
        """Decorates what runs before the worker serves: the moment to start timers and to connect to what is outside. It
        can be asked again if it raises. `activation.may_miss` says what a crash may have cost."""
        self.activate_hooks.append(hook)
        return hook

    def on_suspend(self, hook: Callable[[Reason], object]) -> Callable[[Reason], object]:
        """Decorates what stops all that could change the state besides clients. If it raises the worker stays Active."""
        self.suspend_hooks.append(hook)
        return hook

    def on_resume(self, hook: Callable[[], object]) -> Callable[[], object]:
        """Decorates what undoes `on_suspend`: the move was called off, or the code was changed."""
        self.resume_hooks.append(hook)
        return hook

    def load(self, handler: Callable[[], int]) -> Callable[[], int]:
        """Decorates what gives the worker's load, in a unit that is the same for all workers of the hub. It is called
        often and must be quick."""
        self._load = handler
        return handler

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """For changes from outside of a serial handler: alone, as one change, undone if it raises. A suspend waits for its
        end. Raises `NotActive` where the state cannot change."""
        if getattr(self._hooked, "now", False):
            with self.clock.transaction():
                yield
            return
        if self.gate is None:
            raise NotActive("this worker does not run, or another version has taken its place")
        try:
            with self.gate.admitted(), self.gate.inside(), self.clock.transaction():
                yield
        except Closed as closed:
            raise NotActive(f"{closed}: nothing changes its state now") from None

    def run(self, code: Optional[str] = None) -> None:
        """Serves until SIGTERM. `code` is where the code of another version is found for a change in the running process,
        such as `account.v{vsn}`; without it this worker's own module is loaded anew."""
        from .run import run

        run(self, code)

    # For the rest of the SDK.

    @property
    def accepts_from(self) -> Tuple[str, ...]:
        """Other versions whose states this one takes."""
        ways = self.steps.reached()
        return (*self._accepts_from, *(vsn for vsn in ways if vsn not in self._accepts_from))

    def change(self, old_vsn: OldVsn, extra: object) -> Change:
        """How a state of that version becomes one of this version."""
        return Change(old_vsn, extra, self.steps.way(old_vsn) or self.code_change_handler)

    @property
    def deltas(self) -> bool:
        """Whether every part knows what changed."""
        return bool(self.parts) and all(part.floor is not None for part in self.parts.values())

    @property
    def delta_from(self) -> List[str]:
        """The versions whose deltas are taken."""
        return [self.vsn, *self.accepts_from] if self.deltas else []

    @property
    def live(self) -> bool:
        """Whether it can be captured while it serves."""
        return bool(self.parts) and self._manual_live

    def base(self, since: Optional[int]) -> Optional[int]:
        """`since`, if a delta on it can be given."""
        if since is None or not self.deltas or since > self.clock.seq:
            return None
        return since if all((part.floor or 0) <= since for part in self.parts.values()) else None

    def decode(self, raw: Dict[str, bytes], change: Optional[Change], delta: bool) -> Install:
        """Makes a state of this version out of parts and changes nothing yet."""
        by_hand: List[Install] = []
        tracked: List[Install] = []
        for name, data in raw.items():
            part = self.parts.get(name)
            if part is not None:
                (by_hand if isinstance(part, ManualPart) else tracked).append(part.decode(data, delta, change))
            elif name not in self._drops:
                raise CannotAccept(f"part `{name}` is not known to version `{self.vsn}`: name it in `drops` to lose it")
        missing = [] if delta else [part for name, part in self.parts.items() if name not in raw]
        if missing and change is None:
            raise CannotAccept(f"the state has no part `{missing[0].name}`")

        def install(seq: int) -> None:
            with self.clock.lock:
                # What is restored by hand can fail, so it comes first.
                for step in by_hand + tracked:
                    step(seq)
                # A part that is new in this version begins anew.
                for part in missing:
                    part.reset()
                self.clock.set(seq)

        return install

    def merged(self, raw: Dict[str, bytes], change: Optional[Change]) -> Dict[str, bytes]:
        """The state that its author makes of the present one and another, in this version's form."""
        handler = self.merge_handler
        if handler is None:
            raise CannotAccept("this worker does not merge two states: decorate what does with @worker.merge")
        self.decode(raw, change, False)
        own = {name: part.plain(b"".join(part.lines(None) or []), None) for name, part in self.parts.items()}
        other = {name: self.parts[name].plain(data, change) for name, data in raw.items() if name in self.parts}
        try:
            result = handler(own, other)
            return {name: part.encode(result[name]) for name, part in self.parts.items()}
        except Exception as error:
            raise refusal_of(error, "merge", Code.CANNOT_ACCEPT) from error

    def reset(self) -> None:
        """Begins anew."""
        with self.clock.lock:
            for part in self.parts.values():
                part.reset()
            self.clock.set(0)

    def run_hooks(self, hooks: Sequence[Callable[..., object]], what: str, *arguments: object) -> None:
        """Runs the author's hooks, in which the state may change without asking the gate."""
        self._hooked.now = True
        try:
            for hook in hooks:
                hook(*arguments)
        except Exception as error:
            raise refusal_of(error, what, Code.INTERNAL) from error
        finally:
            self._hooked.now = False

    def current_load(self) -> int:
        """Its load; 0 where nobody says, or can."""
        try:
            return max(0, int(self._load())) if self._load is not None else 0
        except Exception as error:
            refusal_of(error, "load", Code.INTERNAL)
            return 0

    def attach(self, gate: Gate) -> None:
        """It is the code that runs."""
        self.gate = gate

    def detach(self) -> None:
        """Another version has taken its place."""
        self.gate = None
        self.clock.writable = False

