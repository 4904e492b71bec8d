"""A worker that serves in this process, and a sidecar's calls on it."""

from __future__ import annotations

import http.client
import json
import logging
import unittest
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from processhub import Config, Server, Worker

logging.getLogger("processhub").addHandler(logging.NullHandler())
logging.getLogger("processhub").propagate = False

Upload = Dict[str, bytes]


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


def call(address: Tuple[str, int], method: str, path: str, body: object = None, **headers: str) -> Answer:
    raw = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request(method, path, raw, headers)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


class Sidecar:
    """Calls a worker as its sidecar does."""

    def __init__(self, control: Tuple[str, int], listen: Optional[Tuple[str, int]]) -> None:
        self.control = control
        self.listen = listen

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        return call(self.control, method, "/v1" + path, body)

    def info(self) -> Any:
        return self.ask("GET", "/info").json

    def activate(self, epoch: int, initial: bool = True, **more: object) -> Answer:
        body = {"epoch": epoch, "reason": "Start" if initial else "Handover", "initial": initial, **more}
        return self.ask("POST", "/activate", body)

    def suspend(self, epoch: int) -> Answer:
        return self.ask("POST", "/suspend", {"epoch": epoch, "reason": "Handover"})

    def resume(self, epoch: int) -> Answer:
        return self.ask("POST", "/resume", {"epoch": epoch})

    def capture(self, epoch: int, **more: int) -> Answer:
        return self.ask("POST", "/capture", {"epoch": epoch, "purpose": "Handover", **more})

    def state(self, epoch: int, **more: int) -> Tuple[Any, Upload]:
        """A capture's answer and its parts."""
        answer = self.capture(epoch, **more).json
        parts = {p["name"]: self.ask("GET", f"/capture/{answer['capture']}/{p['name']}").body for p in answer["parts"]}
        return answer, parts

    def upload(self, name: str, parts: Upload) -> List[int]:
        return [self.ask("PUT", f"/import/{name}/{part}?offset=0", data).status for part, data in parts.items()]

    def apply(self, name: str, parts: Upload, seq: int, upload: bool = True, **more: object) -> Answer:
        if upload:
            self.upload(name, parts)
        sizes = [{"name": part, "bytes": len(data)} for part, data in parts.items()]
        body = {"epoch": 9, "reason": "Handover", "vsn": "1", "seq": seq, "parts": sizes, **more}
        return self.ask("POST", f"/import/{name}/apply", body)

    def client(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        assert self.listen is not None
        return call(self.listen, method, path, body, **headers)


class Case(unittest.TestCase):
    """A test with workers."""

    def serve(self, worker: Worker, code: Optional[str] = None) -> Sidecar:
        server = Server(worker, Config(("127.0.0.1", 0), ("127.0.0.1", 0), shutdown_grace=5), code)
        server.start()
        self.addCleanup(server.stop)
        return Sidecar(server.control_address, server.listen_address)
