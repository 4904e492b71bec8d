"""All tests, with the closing line that the other tests of this repository have: `python3 -m tests` in `sdk/python`."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    sys.path.insert(0, str(HERE.parent / "src"))
    found = unittest.defaultTestLoader.discover(str(HERE), top_level_dir=str(HERE.parent))
    result = unittest.TextTestRunner(stream=sys.stdout).run(found)
    failed = len(result.failures) + len(result.errors)
    passed = result.testsRun - failed - len(result.skipped)
    word = "ok" if result.wasSuccessful() and passed else "FAILED"
    print(f"test result: {word}. {passed} passed; {failed} failed; {len(result.skipped)} ignored")
    return 0 if word == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
