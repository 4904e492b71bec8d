"""Runs a worker: the contract on one address, its clients on another, until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Mapping, Optional, Tuple

from . import loader
from .clients import answer_client
from .control import LONGEST_BODY, answer_bad_body, answer_sidecar
from .core import Core
from .http import HttpServer

if TYPE_CHECKING:
    from .worker import Worker

Address = Tuple[str, int]
MAX_CLIENT_BODY = 8 << 20
"""Longest body of a client's request, in bytes."""


@dataclass(frozen=True)
class Config:
    """Where a worker serves, and as whom."""

    control: Address = ("127.0.0.1", 9700)
    """Where the sidecar reaches the worker."""
    listen: Optional[Address] = ("127.0.0.1", 8080)
    """Where clients reach the worker (through the sidecar); None for a worker that serves them by other means."""
    namespace: str = ""
    hub: str = ""
    process: str = ""
    """Names, empty without a sidecar."""
    shutdown_grace: float = 25.0
    """How many seconds requests may still run after SIGTERM."""

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> "Config":
        """Reads the `PROCESSHUB_*` environment that the operator gives to each worker."""

        def address(name: str, default: Address) -> Address:
            return parse_address(name, environment[name]) if name in environment else default

        return cls(
            address("PROCESSHUB_CONTROL", ("127.0.0.1", 9700)),
            address("PROCESSHUB_LISTEN", ("127.0.0.1", 8080)),
            environment.get("PROCESSHUB_NAMESPACE", ""),
            environment.get("PROCESSHUB_HUB", ""),
            environment.get("PROCESSHUB_PROCESS", ""),
        )


def parse_address(name: str, text: str) -> Address:
    """`address:port`, or a ValueError that names the variable."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        message = f"environment variable {name} is {text!r}, which is not an address and port such as 127.0.0.1:9700"
        raise ValueError(message)
    return host, int(port)


class Server:
    """A worker that serves: `start` binds and serves both addresses, `stop` ends it."""

    def __init__(self, worker: "Worker", config: Config, code: Optional[str] = None) -> None:
        self.core = Core(worker, _loader(worker, code))
        self._grace = config.shutdown_grace
        self._control = HttpServer(config.control, partial(answer_sidecar, self.core), LONGEST_BODY, answer_bad_body)
        self._clients: Optional[HttpServer] = None
        try:
            if config.listen is not None:
                self._clients = HttpServer(config.listen, partial(answer_client, self.core), MAX_CLIENT_BODY)
        except BaseException:
            self._control.server_close()
            raise

    @property
    def control_address(self) -> Address:
        """Where the sidecar reaches the worker."""
        return self._control.server_address[0], self._control.server_address[1]  # type: ignore[return-value]

    @property
    def listen_address(self) -> Optional[Address]:
        """Where clients reach it."""
        if self._clients is None:
            return None
        return self._clients.server_address[0], self._clients.server_address[1]  # type: ignore[return-value]

    def start(self) -> None:
        """Serves, on threads of its own."""
        for server in self._servers():
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def _servers(self) -> Tuple[HttpServer, ...]:
        return (self._control,) if self._clients is None else (self._control, self._clients)

    def stop(self) -> None:
        """Takes no client's request any more, waits for those that run, and ends. The contract is answered to the end:
        the sidecar asks for as long as requests run."""
        self.core.gate.stop(self._grace)
        for server in reversed(self._servers()):
            server.shutdown()
            server.server_close()


def _loader(worker: "Worker", code: Optional[str]) -> Optional[loader.Loader]:
    if code is not None:
        pattern = code
        return lambda vsn: loader.load_worker(loader.module_of(pattern, vsn))
    if worker.module is None:
        return None
    module = loader.main_module() if worker.module == "__main__" else worker.module
    return lambda _: loader.load_worker(module)


def run(worker: "Worker", code: Optional[str] = None, config: Optional[Config] = None) -> None:
    """Serves until SIGTERM or SIGINT."""
    if loader.is_loading():
        raise RuntimeError('put worker.run() under `if __name__ == "__main__":`, so that the module can be loaded anew')
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    server = Server(worker, config or Config.from_env(), code)
    server.start()
    stopping.wait()
    server.stop()
