"""`processhub-sidecar verify` on workers in processes of their own. PROCESSHUB_SIDECAR names the program; without it the one
that `cargo build` made of this checkout is taken."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import unittest
from itertools import count
from pathlib import Path
from typing import Dict, Iterator, List, Optional

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "sdk" / "python" / "src"
_hosts: Iterator[int] = count(1)


def sidecar() -> Optional[Path]:
    named = os.environ.get("PROCESSHUB_SIDECAR")
    if named:
        return Path(named)
    built = [ROOT / "target" / kind / "processhub-sidecar" for kind in ("debug", "release")]
    return next((path for path in built if path.exists()), None)


@unittest.skipUnless(sidecar(), "processhub-sidecar is not built: cargo build --package processhub-sidecar")
class Verifier(unittest.TestCase):
    """Runs the program on a worker."""

    def verify(
        self, run: List[str], change: str, read: str, path: Path, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        # Addresses that no other run of these tests has at the same time.
        pid = os.getpid()
        host = f"127.{200 + (pid >> 16) % 50}.{(pid >> 8) % 256}.{(pid + next(_hosts)) % 250 + 1}"
        variables: Dict[str, str] = {**os.environ, "PYTHONPATH": f"{SOURCES}{os.pathsep}{path}", **environment}
        options = ["--control", f"{host}:9700", "--listen", f"{host}:8080", "--change", change, "--read", read]
        command = [str(sidecar()), "verify", *options, "--run", sys.executable, *run]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)

    def keeps_every_rule(self, run: List[str], change: str, read: str, path: Path, **environment: str) -> None:
        done = self.verify(run, change, read, path, **environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(" right, 0 wrong, ", done.stdout, done.stdout)
        # What the SDK gives every worker is never skipped; deltas, consent and code change are up to the worker.
        self.assertNotRegex(done.stdout, r"(?m)^skip   (?!4 )\d")

    def written(self, source: str) -> Path:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name) / "worker.py"
        path.write_text(textwrap.dedent(source))
        return path


class VerifyTest(Verifier):
    def test_every_version_of_the_account_keeps_every_rule(self) -> None:
        path = ROOT / "examples" / "account"
        for vsn in ("1", "2", "3"):
            with self.subTest(vsn=vsn):
                self.keeps_every_rule(["-m", "account"], 'POST /deposit {"amount": 5}', "GET /balance", path, ACCOUNT_VSN=vsn)

    def test_the_session_store_keeps_every_rule(self) -> None:
        path = ROOT / "examples" / "sessions"
        self.keeps_every_rule([str(path / "sessions.py")], 'POST /sessions {"a": 5}', "GET /stats", path)

    def test_parts_by_hand_keep_every_rule(self) -> None:
        path = self.written(
            """
            from processhub import Worker

            worker = Worker(vsn="1")
            held = {"value": 0}
            document = worker.part("state")
            document.capture(lambda: held)

            @document.restore
            def restore(value):
                held["value"] = value["value"]

            @worker.post("/add")
            def add(request):
                held["value"] += 1
                return held

            @worker.get("/read")
            def read(request):
                return held

            worker.run()
            """
        )
        self.keeps_every_rule([str(path)], "POST /add", "GET /read", path.parent)

    def test_a_state_that_is_kept_beside_the_worker_is_found(self) -> None:
        path = self.written(
            """
            import random
            from processhub import Worker

            worker = Worker(vsn="1")
            state = worker.state(dict)
            value = random.randrange(10**9)

            @worker.post("/add")
            def add(request):
                global value
                value += 1
                return str(value)

            @worker.get("/read")
            def read(request):
                return str(value)

            worker.run()
            """
        )
        done = self.verify([str(path)], "POST /add", "GET /read", path.parent)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("WRONG  5 freeze       a client reads the same after the move as before", done.stdout)


if __name__ == "__main__":
    unittest.main()
