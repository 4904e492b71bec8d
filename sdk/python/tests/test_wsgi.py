"""A WSGI application behind the gate, served by the standard library's server."""

from __future__ import annotations

import threading
from typing import Any, Dict, Iterable, List
from wsgiref.simple_server import WSGIRequestHandler, make_server

from processhub import Config, Server, Worker

from .support import Case, Sidecar


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class WsgiTest(Case):
    def setUp(self) -> None:
        self.worker = Worker(vsn="1", module=__name__)
        state = self.worker.state(dict)
        self.closed: List[bool] = []

        class Body(List[bytes]):
            def close(body) -> None:
                self.closed.append(True)

        def application(environ: Dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if environ["REQUEST_METHOD"] == "POST":
                state.value["n"] = state.value.get("n", 0) + 1
            if environ["PATH_INFO"] == "/fail":
                raise KeyError("a secret")
            start_response("200 OK", [("Content-Type", "text/plain")])
            return Body([str(state.value.get("n", 0)).encode()])

        guarded = self.worker.wsgi(application, probes=["/healthz"])
        web = make_server("127.0.0.1", 0, guarded, handler_class=Quiet)
        threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.addCleanup(web.server_close)
        self.addCleanup(web.shutdown)
        server = Server(self.worker, Config(("127.0.0.1", 0), None))
        server.start()
        self.addCleanup(server.stop)
        self.assertIsNone(server.listen_address)
        self.at = Sidecar(server.control_address, ("127.0.0.1", web.server_port))

    def test_it_is_served_only_while_the_worker_is_active(self) -> None:
        waits = self.at.client("POST", "/add")
        self.assertEqual((waits.status, waits.headers["processhub-state"]), (503, "Standby"))
        self.assertEqual(self.at.client("GET", "/healthz").status, 200)
        self.at.activate(1)
        added = self.at.client("POST", "/add")
        self.assertEqual((added.body, added.headers["processhub-seq"], self.closed), (b"1", "1", [True, True]))
        self.assertEqual(self.at.client("GET", "/").headers["processhub-seq"], "1")
        self.assertEqual(self.at.suspend(2).status, 204)
        self.assertEqual(self.at.client("POST", "/add").headers["processhub-state"], "Suspended")
        self.assertEqual(self.at.state(2)[1], {"state": b'{"n":1}'})
        body = {"epoch": 2, "from": "1", "to": "2", "direction": "Up", "extra": None}
        self.assertIn("WSGI", self.at.ask("POST", "/code-change", body).json["message"])

    def test_what_raises_changes_nothing(self) -> None:
        self.at.activate(1)
        before = self.worker.clock.seq
        self.assertEqual(self.at.client("POST", "/fail").status, 500)
        self.assertEqual((self.at.client("GET", "/").body, self.worker.clock.seq), (b"0", before))
