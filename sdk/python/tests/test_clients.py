"""What clients may send, and what a handler's result becomes."""

from __future__ import annotations

import http.client
import socket
from typing import Any, Iterator

from processhub import HttpError, Request, Response, Worker

from .support import Case


def routes() -> Worker:
    worker = Worker()
    state = worker.state(dict)

    @worker.get("/none")
    def none(_: Request) -> object:
        return None

    @worker.get("/text")
    def text(_: Request) -> object:
        return "ä"

    @worker.get("/bytes")
    def raw(_: Request) -> object:
        return b"\x00"

    @worker.get("/full")
    def full(request: Request) -> object:
        return Response(418, "short", {"X-Stout": request.headers["x-tea"]})

    @worker.get("/stream")
    def stream(_: Request) -> object:
        def pieces() -> Iterator[bytes]:
            yield b"a"
            yield b"b" * 100_000

        return Response(body=pieces())

    @worker.post("/echo/{name}/{rest}")
    def echo(request: Request) -> object:
        return 201, {"params": dict(request.params), "query": dict(request.query), "text": request.text}

    @worker.post("/json")
    def as_json(request: Request) -> object:
        return [request.json(), request.epoch]

    @worker.post("/refuse")
    def refuse(_: Request) -> object:
        state.value["refused"] = True
        raise HttpError(409, "there is one already")

    @worker.post("/fail")
    def fail(_: Request) -> object:
        state.value["failed"] = True
        raise KeyError("a secret")

    @worker.get("/state")
    def show(_: Request) -> object:
        return state.value

    return worker


class ClientsTest(Case):
    def setUp(self) -> None:
        self.at = self.serve(routes())
        self.at.activate(1)

    def test_results_become_answers(self) -> None:
        for path, status, body, kind in (
            ("/none", 204, b"", None),
            ("/text", 200, "ä".encode(), "text/plain; charset=utf-8"),
            ("/bytes", 200, b"\x00", "application/octet-stream"),
            ("/state", 200, b"{}\n", "application/json"),
            ("/stream", 200, b"a" + b"b" * 100_000, None),
        ):
            answer = self.at.client("GET", path)
            self.assertEqual((answer.status, answer.body, answer.headers.get("content-type")), (status, body, kind), path)
        answer = self.at.client("GET", "/full", **{"X-Tea": "black"})
        self.assertEqual((answer.status, answer.body, answer.headers["x-stout"]), (418, b"short", "black"))

    def test_paths_have_parameters(self) -> None:
        answer = self.at.client("POST", "/echo/a%2Fb/c?x=1&y=", b"hello")
        self.assertEqual(answer.status, 201)
        told = {"params": {"name": "a/b", "rest": "c"}, "query": {"x": "1", "y": ""}, "text": "hello"}
        self.assertEqual(answer.json, told)

    def test_what_nobody_serves_is_told_apart(self) -> None:
        self.assertEqual(self.at.client("GET", "/nothing").status, 404)
        answer = self.at.client("PATCH", "/json")
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "POST"))
        self.assertEqual(self.at.client("HEAD", "/text").headers["content-length"], "2")

    def test_a_request_that_fails_changes_nothing(self) -> None:
        answer = self.at.client("POST", "/refuse")
        self.assertEqual((answer.status, answer.body), (409, b"there is one already\n"))
        answer = self.at.client("POST", "/fail")
        self.assertEqual(answer.status, 500)
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(self.at.client("GET", "/state").json, {})
        self.assertEqual(self.at.info()["seq"], 0)

    def test_bad_bodies_are_the_client_s_fault(self) -> None:
        self.assertEqual(self.at.client("POST", "/json", b"{").status, 400)
        self.assertEqual(self.at.client("POST", "/echo/a/b", b"\xff").status, 400)
        self.assertEqual(self.at.client("POST", "/json", bytes((8 << 20) + 1)).status, 413)
        answer = self.at.client("POST", "/json", b"[1]", **{"ProcessHub-Epoch": "7"})
        self.assertEqual(answer.json, [[1], 7])

    def raw(self, request: bytes) -> bytes:
        assert self.at.listen is not None
        with socket.create_connection(self.at.listen, timeout=10) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            pieces = iter(lambda: connection.recv(1 << 16), b"")
            return b"".join(pieces)

    def test_chunked_bodies_and_kept_alive_connections(self) -> None:
        head = b"POST /json HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        body = b"2;name=value\r\n[1\r\n4\r\n,22]\r\n0\r\ntrailer: x\r\n\r\n"
        answer = self.raw(2 * (head + body))
        self.assertEqual(answer.count(b"[[1,22],null]"), 2)

    def test_bodies_that_could_be_read_in_two_ways_are_refused(self) -> None:
        for headers in (
            b"transfer-encoding: chunked\r\ncontent-length: 3\r\n",
            b"transfer-encoding: gzip, chunked\r\n",
            b"content-length: +3\r\n",
            b"content-length: 3, 3\r\n",
        ):
            answer = self.raw(b"POST /json HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n[1]")
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), (headers, answer))
            self.assertIn(b"connection: close", answer)
        cut = self.raw(b"POST /json HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n[1")
        self.assertTrue(cut.startswith(b"HTTP/1.1 400 "), cut)

    def test_a_client_that_goes_away_ends_its_request_only(self) -> None:
        assert self.at.listen is not None
        connection = http.client.HTTPConnection(*self.at.listen)
        connection.request("GET", "/stream")
        connection.close()
        self.assertEqual(self.at.suspend(2).status, 204)
        self.assertEqual(self.at.resume(3).status, 204)

    def test_handlers_have_paths(self) -> None:
        def handler(_: Request) -> Any:
            return None

        with self.assertRaises(ValueError):
            Worker().get("no-slash")(handler)
