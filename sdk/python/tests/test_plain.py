"""The workers without an SDK keep the contract, and docs/worker.md shows them as they are. They are tried here, where
workers in languages other than Rust are."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import List

from . import test_verify

ROOT = Path(__file__).parents[3]
GO = ROOT / "examples" / "plain-go" / "main.go"
NODE = ROOT / "examples" / "plain-node" / "worker.js"


class PlainTest(test_verify.Verifier):
    def keeps(self, command: List[str]) -> None:
        host = f"127.{251 + len(command)}.7.1"
        options = ["--control", f"{host}:9700", "--listen", f"{host}:8080", "--timeout", "30000"]
        calls = ["--change", "POST /add", "--read", "GET /value"]
        program = [str(test_verify.sidecar()), "verify", *options, *calls, "--run", *command]
        done = subprocess.run(program, capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("a client reads the same after the move as before", done.stdout)
        self.assertIn(" 0 wrong", done.stdout)

    @unittest.skipUnless(shutil.which("go"), "there is no Go on this machine: nothing is said of examples/plain-go")
    def test_the_one_in_go_keeps_every_rule(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            program = str(Path(directory) / "plain-go")
            subprocess.run(["go", "build", "-o", program, str(GO)], check=True)
            self.keeps([program])

    @unittest.skipUnless(shutil.which("node"), "there is no Node.js on this machine: nothing is said of examples/plain-node")
    def test_the_one_in_node_js_keeps_every_rule(self) -> None:
        self.keeps(["node", str(NODE)])

    def test_a_wrong_one_is_found(self) -> None:
        if not shutil.which("node"):
            self.skipTest("there is no Node.js on this machine")
        source = NODE.read_text()
        wrong = source.replace("if (call.epoch < epoch || ", "if (", 1)
        self.assertNotEqual(source, wrong)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "worker.js"
            path.write_text(wrong)
            with self.assertRaises(AssertionError) as told:
                self.keeps(["node", str(path)])
        self.assertIn("with a lower epoch is refused", str(told.exception))


class ShownTest(unittest.TestCase):
    def test_the_page_shows_them_as_they_are(self) -> None:
        page = (ROOT / "docs" / "worker.md").read_text()
        for language, path in (("go", GO), ("javascript", NODE)):
            shown = page.split(f"```{language}\n")[1].split("\n```")[0]
            self.assertEqual(shown, path.read_text().rstrip("\n"), f"copy {path} into docs/worker.md")


if __name__ == "__main__":
    unittest.main()
