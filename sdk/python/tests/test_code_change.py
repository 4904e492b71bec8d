"""`code_change(old_vsn, state, extra)`: with a state that comes in, and in the running process."""

from __future__ import annotations

import os
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path
from typing import Any, Dict, List

from processhub import CannotAccept, Down, Worker, loader

from .support import Answer, Case, Sidecar

ACCOUNT = Path(__file__).parents[3] / "examples" / "account"


def forget(root: str) -> None:
    for name in [name for name in sys.modules if name == root or name.startswith(root + ".")]:
        del sys.modules[name]


class ComingInTest(Case):
    """The account of the example, from one version to another by way of a capture."""

    def setUp(self) -> None:
        sys.path.insert(0, str(ACCOUNT))
        self.addCleanup(sys.path.remove, str(ACCOUNT))
        self.addCleanup(forget, "account")

    def version(self, vsn: str) -> Worker:
        return loader.load_worker(f"account.v{vsn}")[0]

    def begin(self, vsn: str) -> Sidecar:
        at = self.serve(self.version(vsn))
        at.activate(1)
        at.client("POST", "/deposit", {"amount": 40, "id": "first"})
        return at

    def move(self, source: Sidecar, vsn: str, epoch: int = 2, **more: object) -> "tuple[Answer, Sidecar]":
        if source.info()["state"] == "Active":
            source.suspend(epoch)
        answer, parts = source.state(epoch)
        target = self.serve(self.version(vsn))
        body = {"reason": "CodeChange", "vsn": answer["vsn"], "epoch": 9, **more}
        applied = target.apply("i", parts, answer["seq"], **body)
        if applied.status == 204 and not body.get("dryRun"):
            target.activate(9, False)
        return applied, target

    def test_up_and_down_again(self) -> None:
        first = self.begin("1")
        self.assertEqual(first.client("GET", "/balance").json, 40)
        answer, second = self.move(first, "2", extra={"bonus": 2})
        self.assertEqual(answer.status, 204)
        self.assertEqual(second.client("POST", "/deposit", {"amount": 5, "id": "first"}).json, {"salary": 42}, "booked once")
        self.assertEqual(second.client("POST", "/deposit", {"amount": 5}).json, {"salary": 47})
        answer, third = self.move(second, "3", epoch=10)
        self.assertEqual(third.client("GET", "/balance").json, {"salary": 47, "currency": "EUR"})
        answer, second = self.move(third, "2", epoch=10, direction="Down")
        self.assertEqual(second.client("GET", "/balance").json, {"salary": 47})
        answer, first = self.move(second, "1", epoch=10, direction="Down")
        self.assertEqual(first.client("POST", "/deposit", {"amount": 5, "id": "first"}).json, 47)

    def test_a_jump_over_a_version_goes_through_it(self) -> None:
        answer, third = self.move(self.begin("1"), "3", extra={"bonus": 2})
        self.assertEqual(answer.status, 204)
        self.assertEqual(third.client("GET", "/balance").json, {"salary": 42, "currency": "EUR"})
        self.assertEqual(third.client("POST", "/deposit", {"amount": 5, "id": "first"}).json["salary"], 42, "booked once")

    def test_a_jump_without_a_way_is_refused(self) -> None:
        answer, target = self.move(self.begin("3"), "1", direction="Down")
        self.assertEqual((answer.status, answer.code), (422, "CannotAccept"))
        self.assertIn("of version `3`, this worker is `1` and accepts [2]", answer.json["message"])
        self.assertEqual(target.info()["state"], "Standby")

    def test_what_an_older_version_cannot_hold_is_refused(self) -> None:
        source = self.begin("3")
        source.client("PUT", "/currency", b"usd")
        answer, _ = self.move(source, "2", direction="Down")
        self.assertEqual((answer.status, answer.code), (422, "CannotAccept"))
        self.assertIn("currency", answer.json["message"])
        self.assertEqual(source.resume(20).status, 204)
        self.assertEqual(source.client("GET", "/balance").json["currency"], "USD")

    def test_a_dry_run_says_so_and_changes_nothing(self) -> None:
        source = self.begin("1")
        answer, target = self.move(source, "2", dryRun=True)
        self.assertEqual((answer.status, target.info()["seq"]), (204, 0))
        source = self.begin("3")
        source.client("PUT", "/currency", b"usd")
        answer, _ = self.move(source, "2", direction="Down", dryRun=True)
        self.assertEqual(answer.status, 422)

    def test_deltas_of_another_version_are_converted_too(self) -> None:
        source = self.begin("1")
        base, parts = source.state(1)
        target = self.serve(self.version("2"))
        self.assertEqual(target.info()["deltaFrom"], ["2", "1", "3"])
        more: Dict[str, Any] = {"reason": "CodeChange", "vsn": "1"}
        self.assertEqual(target.apply("a", parts, base["seq"], **more).status, 204)
        source.client("POST", "/deposit", {"amount": 1, "id": "second"})
        delta, parts = source.state(1, since=base["seq"])
        self.assertEqual(target.apply("b", parts, delta["seq"], since=base["seq"], **more).status, 204)
        target.activate(9, False)
        self.assertEqual(target.client("GET", "/balance").json, {"salary": 41})
        self.assertEqual(target.client("POST", "/deposit", {"amount": 1, "id": "second"}).json, {"salary": 41})

    def test_old_vsn_says_which_way(self) -> None:
        seen: List[object] = []
        worker = Worker(vsn="5", accepts_from=["4"])
        worker.state(dict)

        @worker.code_change
        def code_change(old_vsn: Any, state: Any, extra: Any) -> object:
            seen.append((old_vsn, state, extra))
            if extra == "crash":
                raise KeyError("a secret")
            return {"new": True}

        at = self.serve(worker)
        for direction, extra, status in (("Up", None, 204), ("Down", [1], 204), ("Up", "crash", 422)):
            answer = at.apply("i", {"state": b'{"a":1}'}, 3, vsn="4", direction=direction, extra=extra, dryRun=True)
            self.assertEqual(answer.status, status)
            self.assertNotIn(b"secret", answer.body)
        self.assertEqual(seen, [("4", {"a": 1}, None), (Down("4"), {"a": 1}, [1]), ("4", {"a": 1}, "crash")])
        self.assertEqual(at.apply("i", {"state": b'{"a":1}'}, 3, vsn="5", reason="CodeChange").status, 204)
        self.assertEqual(len(seen), 3, "its own version's state needs no change")

    def test_steps_take_the_shortest_way_and_nothing_else(self) -> None:
        worker = Worker(vsn="4", accepts_from=["0"])
        state = worker.state(dict)
        for origin, to in (("1", "2"), ("2", "3"), ("3", "4"), ("1", "3"), ("4", "5")):

            @worker.step(origin, to)
            def convert(state: Any, extra: Any, to: str = to) -> object:
                return {"way": state["way"] + to + extra}

        worker.code_change(lambda old_vsn, state, extra: {"way": "by hand"})
        self.assertEqual(worker.accepts_from, ("0", "3", "2", "1"))
        with self.assertRaisesRegex(ValueError, "a step from `1` to `2` already"):
            worker.step("1", "2")(lambda state, extra: state)
        at = self.serve(worker)
        for vsn, way in (("1", ">3+4+"), ("2", ">3+4+"), ("3", ">4+"), ("0", "by hand")):
            answer = at.apply(f"i{vsn}", {"state": b'{"way":">"}'}, 3, vsn=vsn, reason="CodeChange", extra="+")
            self.assertEqual((answer.status, state.value), (204, {"way": way}), vsn)


class RunningTest(Case):
    """Code that is changed on disk while the process runs."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name)
        sys.path.insert(0, directory.name)
        self.addCleanup(sys.path.remove, directory.name)
        self.addCleanup(forget, "ledger")

    def write(self, vsn: str, change: str, key: str, more: str = "") -> None:
        source = f"""
            from processhub import Down, Worker, CannotAccept
            import ledger_help
            worker = Worker(vsn="{vsn}", accepts_from=["1", "2"], module=__name__)
            state = worker.state(lambda: {{"{key}": 0}})
            rows = worker.table("rows")

            @worker.post("/add")
            def add(request):
                state.value["{key}"] += 1
                rows[request.text] = 1
                return {{"{key}": state.value["{key}"], "rows": len(rows), "vsn": label()}}

            def label():
                return worker.vsn

            @worker.code_change
            def code_change(old_vsn, state, extra):
                {change}

            {more}
        """
        (self.path / "ledger.py").write_text(textwrap.dedent(source))
        # The same second and the same length: only the source itself tells the versions apart.
        os.utime(self.path / "ledger.py", (1_700_000_000, 1_700_000_000))

    def begin(self) -> Sidecar:
        (self.path / "ledger_help.py").write_text("")
        self.addCleanup(forget, "ledger_help")
        self.write("1", "return {'abc': state['xyz']}", "abc")
        worker, _ = loader.load_worker("ledger")
        at = self.serve(worker)
        at.activate(1)
        at.client("POST", "/add", b"a")
        return at

    def change(self, at: Sidecar, epoch: int, origin: str, to: str, direction: str = "Up") -> Answer:
        body = {"epoch": epoch, "from": origin, "to": to, "direction": direction, "extra": None}
        return at.ask("POST", "/code-change", body)

    def test_the_code_changes_and_changes_back_under_the_same_instance(self) -> None:
        at = self.begin()
        before = at.info()
        self.assertEqual(self.change(at, 1, "1", "2").code, "WrongState")
        self.write("2", "return {'xyz': state['abc']}", "xyz")
        at.suspend(2)
        for _ in range(2):
            self.assertEqual(self.change(at, 2, "1", "2").status, 204)
        after = at.info()
        self.assertEqual((after["vsn"], after["instance"], after["state"]), ("2", before["instance"], "Suspended"))
        self.assertGreater(after["seq"], before["seq"])
        self.assertEqual(at.resume(3).status, 204)
        self.assertEqual(at.client("POST", "/add", b"b").json, {"xyz": 2, "rows": 2, "vsn": "2"})
        self.assertNotIn("since", at.capture(3, since=before["seq"]).json, "no delta over a change of code")
        self.write("1", "return {'abc': state['xyz']} if old_vsn == Down('2') else None", "abc")
        at.suspend(4)
        self.assertEqual(self.change(at, 4, "2", "1", "Down").status, 204)
        at.resume(5)
        self.assertEqual(at.client("POST", "/add", b"b").json, {"abc": 3, "rows": 2, "vsn": "1"})

    def test_whatever_fails_leaves_the_old_code_with_its_state(self) -> None:
        at = self.begin()
        for epoch, (vsn, change, more, says) in enumerate(
            (
                ("2", "raise CannotAccept('no such money')", "", "no such money"),
                ("2", "return state['nothing']", "", "code_change raised KeyError"),
                ("2", "return 7", "", "not an object"),
                ("2", "return state", "raise RuntimeError('broken')", "RuntimeError"),
                ("2", "return (", "", "SyntaxError"),
                ("2", "return state", "worker.run()", "RuntimeError"),
                ("2", "return state", "other = Worker()", "2 workers"),
                ("1", "return state", "", "is version `1`, not `2`"),
            ),
            2,
        ):
            self.write(vsn, change, "xyz", more)
            at.suspend(2 * epoch)
            answer = self.change(at, 2 * epoch, "1", "2")
            self.assertEqual((answer.status, answer.code), (422, "CannotAccept"), says)
            self.assertIn(says, answer.json["message"])
            self.assertEqual((at.info()["vsn"], at.info()["state"]), ("1", "Suspended"))
            at.resume(2 * epoch + 1)
            self.assertEqual(at.client("POST", "/add", b"a").json, {"abc": epoch, "rows": 1, "vsn": "1"})

    def test_a_change_from_another_version_is_refused(self) -> None:
        at = self.begin()
        at.suspend(2)
        answer = self.change(at, 2, "7", "8")
        self.assertEqual(answer.status, 422)
        self.assertIn("runs version `1`, not `7`", answer.json["message"])
        self.assertEqual(self.change(at, 1, "1", "2").code, "StaleEpoch")

    def test_the_old_worker_can_no_longer_change_anything(self) -> None:
        (self.path / "ledger_help.py").write_text("")
        self.addCleanup(forget, "ledger_help")
        self.write("1", "return state", "abc")
        worker, _ = loader.load_worker("ledger")
        at = self.serve(worker)
        at.activate(1)
        self.write("2", "return {'xyz': 0}", "xyz")
        at.suspend(2)
        self.assertEqual(self.change(at, 2, "1", "2").status, 204)
        at.resume(3)
        with self.assertRaisesRegex(RuntimeError, "another version"):
            with worker.transaction():
                pass

    def test_a_worker_that_cannot_find_its_code_says_so(self) -> None:
        at = self.serve(Worker(vsn="1"))
        at.activate(1)
        at.suspend(2)
        answer = self.change(at, 2, "1", "2")
        self.assertEqual(answer.status, 404, "it does not have that call")
        self.assertIn("module=__name__", answer.json["message"])

    def test_names_of_modules_are_made_of_versions(self) -> None:
        self.assertEqual(loader.module_of("account.v{vsn}", "1.8-rc"), "account.v1_8_rc")


if __name__ == "__main__":
    unittest.main()
