"""The programs of docs/sdk-python.md are programs, and the first one keeps every rule."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import List

from . import test_verify

ROOT = Path(__file__).parents[3]


def blocks() -> List[str]:
    text = (ROOT / "docs" / "sdk-python.md").read_text()
    return [rest.split("```")[0] for rest in text.split("```python\n")[1:]]


class DocsTest(unittest.TestCase):
    def test_they_compile(self) -> None:
        self.assertEqual(len(blocks()), 3)
        for block in blocks():
            compile(block, "docs/sdk-python.md", "exec")


class ProgramTest(test_verify.Verifier):
    def test_the_first_program_keeps_every_rule(self) -> None:
        path = self.written(blocks()[0])
        self.keeps_every_rule([str(path)], "POST /add/me", "GET /value", path.parent)


if __name__ == "__main__":
    unittest.main()
