"""Write a worker for ProcessHub for Kubernetes: a process that moves to another node, comes back after a crash and changes
its code, with its state.

    from dataclasses import dataclass
    from processhub import Request, Worker

    worker = Worker(vsn="1")

    @dataclass
    class Tally:
        value: int = 0

    tally = worker.state(Tally)

    @worker.post("/add")
    def add(_: Request) -> object:
        tally.value.value += 1
        return tally.value

    if __name__ == "__main__":
        worker.run()
"""

from .clients import HttpError, Request, Response
from .contract import Activation, ConsentRequest, Direction, Down, OldVsn, Reason, WorkerState
from .errors import Busy, CannotAccept, NotActive, Refusal, TooLarge
from .parts import ManualPart
from .run import Config, Server, run
from .state import State
from .table import DROP, Table
from .worker import Worker

__version__ = "0.1.0"

__all__ = [
    "DROP",
    "Activation",
    "Busy",
    "CannotAccept",
    "Config",
    "ConsentRequest",
    "Direction",
    "Down",
    "HttpError",
    "ManualPart",
    "NotActive",
    "OldVsn",
    "Reason",
    "Refusal",
    "Request",
    "Response",
    "Server",
    "State",
    "Table",
    "TooLarge",
    "Worker",
    "WorkerState",
    "run",
]
