"""The account as a process of its own: killed in every way, and changed while clients are at it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Dict, List, Set, Tuple

from .support import Sidecar, Upload

ROOT = Path(__file__).parents[3]
DEPOSIT = "/deposit"
Address = Tuple[str, int]


def free_addresses() -> Tuple[Address, Address]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname(), two.getsockname()


class ProcessCase(unittest.TestCase):
    def start(self, vsn: str = "1") -> "Tuple[subprocess.Popen[bytes], Sidecar]":
        control, listen = free_addresses()
        path = [str(ROOT / "sdk" / "python" / "src"), str(ROOT / "examples" / "account")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "PROCESSHUB_CONTROL": "{}:{}".format(*control),
            "PROCESSHUB_LISTEN": "{}:{}".format(*listen),
            "ACCOUNT_VSN": vsn,
        }
        process = subprocess.Popen([sys.executable, "-B", "-m", "account"], env=environment)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        at = Sidecar(control, listen)
        end = time.monotonic() + 60
        while True:
            try:
                at.info()
                return process, at
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.05)


class CrashTest(ProcessCase):
    def test_what_was_captured_survives_every_end(self) -> None:
        process, at = self.start()
        instances: Set[str] = {at.info()["instance"]}
        at.activate(1)
        applied: List[Tuple[Any, Upload]] = []
        expected = 0
        signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL)
        for turn, number in enumerate(signals):
            epoch = 10 * (turn + 1)
            for _ in range(3):
                expected += 1
                self.assertEqual(at.client("POST", DEPOSIT, {"amount": 1, "id": f"d{expected}"}).json, expected)
            since = {"since": applied[-1][0]["seq"]} if applied else {}
            answer, parts = at.state(at.info()["epoch"], **since)
            self.assertEqual(answer.get("since"), since.get("since"), "a delta on what the keeper has")
            applied.append((answer, parts))
            process.send_signal(number)
            process.wait(60)
            process, at = self.start()
            info = at.info()
            self.assertEqual((info["state"], info["epoch"], info["seq"]), ("Standby", 0, 0))
            self.assertNotIn(info["instance"], instances, "another timeline")
            instances.add(info["instance"])
            for index, (answer, parts) in enumerate(applied):
                more = {"since": answer["since"]} if "since" in answer else {}
                body: Dict[str, Any] = {"epoch": epoch, "reason": "Crash", **more}
                self.assertEqual(at.apply(f"k-{index}", parts, answer["seq"], **body).status, 204)
            body = {"epoch": epoch, "reason": "Crash", "initial": False, "mayMiss": answer["seq"] + 1}
            self.assertEqual(at.ask("POST", "/activate", body).status, 204)
            self.assertEqual(at.client("GET", "/balance").json, expected)
            self.assertEqual(at.client("POST", DEPOSIT, {"amount": 9, "id": "d1"}).json, expected, "booked once")
        self.assertEqual(len(applied), len(signals))


class LiveTest(ProcessCase):
    def test_the_code_changes_up_and_down_under_load_and_nothing_is_lost(self) -> None:
        process, at = self.start()
        at.activate(1)
        stop = threading.Event()
        acknowledged: List[str] = []
        other: List[int] = []

        def deposit(client: int) -> None:
            n = 0
            while not stop.is_set():
                name = f"{client}-{n}"
                answer = at.client("POST", DEPOSIT, {"amount": 1, "id": name})
                if answer.status == 200:
                    acknowledged.append(name)
                    n += 1
                elif answer.status == 503 and "processhub-state" in answer.headers:
                    time.sleep(0.01)
                else:
                    other.append(answer.status)

        clients = [threading.Thread(target=deposit, args=(client,)) for client in range(4)]
        for client in clients:
            client.start()
        try:
            way = [("1", "2", "Up"), ("2", "3", "Up"), ("3", "2", "Down"), ("2", "1", "Down"), ("1", "2", "Up")]
            for turn, (origin, to, direction) in enumerate(way):
                before = len(acknowledged)
                while len(acknowledged) < before + 10 and not other:
                    time.sleep(0.01)
                epoch = 10 * (turn + 1)
                self.assertEqual(at.suspend(epoch).status, 204)
                refused = {"epoch": epoch, "from": origin, "to": "7", "direction": "Up", "extra": None}
                self.assertEqual(at.ask("POST", "/code-change", refused).status, 422)
                body = {"epoch": epoch, "from": origin, "to": to, "direction": direction, "extra": None}
                self.assertEqual(at.ask("POST", "/code-change", body).status, 204)
                self.assertEqual(at.resume(epoch + 1).status, 204)
                self.assertEqual(at.info()["vsn"], to)
        finally:
            stop.set()
            for client in clients:
                client.join()
        self.assertEqual(other, [])
        self.assertIsNone(process.poll(), "the same process")
        self.assertEqual(at.client("GET", "/balance").json, {"salary": len(acknowledged)})
        at.suspend(90)
        rows = at.state(90)[1]["table.bookings"].splitlines()
        self.assertEqual({row.split(b'"')[1].decode() for row in rows}, set(acknowledged))


if __name__ == "__main__":
    unittest.main()
