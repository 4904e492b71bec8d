"""A worker over HTTP, called as its sidecar calls it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

from processhub import Activation, CannotAccept, Config, ConsentRequest, NotActive, Reason, Request, Server, Worker

from .support import Case, Sidecar


@dataclass
class Tally:
    value: int = 0


def tally(**options: Any) -> Worker:
    worker = Worker(**{"vsn": "1", **options})
    count = worker.state(Tally)
    names = worker.table("names", int)

    @worker.post("/add")
    def add(request: Request) -> object:
        count.value.value += 1
        names[request.query.get("name", "nobody")] = count.value.value
        return count.value

    @worker.get("/read")
    def read(_: Request) -> object:
        return {"value": count.value.value, "names": dict(names)}

    @worker.get("/healthz", probe=True)
    def healthz(_: Request) -> object:
        return "ok\n"

    return worker


class LifeTest(Case):
    def test_clients_are_served_only_while_it_is_active(self) -> None:
        at = self.serve(tally())
        self.assertEqual((at.info()["state"], at.info()["epoch"], at.info()["capture"]), ("Standby", 0, "Live"))
        waits = at.client("POST", "/add")
        self.assertEqual((waits.status, waits.headers["processhub-state"]), (503, "Standby"))
        self.assertEqual(at.client("GET", "/healthz").status, 200)
        self.assertEqual(at.activate(1).status, 204)
        served = at.client("POST", "/add")
        self.assertEqual((served.status, served.json, served.headers["processhub-seq"]), (200, {"value": 1}, "1"))
        self.assertEqual(at.client("GET", "/read").headers["processhub-seq"], "1")
        self.assertEqual(at.suspend(2).status, 204)
        waits = at.client("POST", "/add")
        self.assertEqual((waits.status, waits.headers["processhub-state"]), (503, "Suspended"))
        self.assertEqual(at.client("GET", "/healthz").status, 200)
        self.assertEqual(at.resume(3).status, 204)
        self.assertEqual(at.client("POST", "/add").json, {"value": 2})

    def test_a_suspend_waits_for_requests_and_a_resume_calls_it_off(self) -> None:
        worker = tally()
        entered, go = threading.Event(), threading.Event()

        @worker.post("/slow", concurrent=True)
        def slow(_: Request) -> object:
            entered.set()
            go.wait(10)
            return "done\n"

        at = self.serve(worker)
        at.activate(1)
        answers: Dict[str, int] = {}
        client = threading.Thread(target=lambda: answers.update(slow=at.client("POST", "/slow").status))
        client.start()
        entered.wait(10)
        suspend = threading.Thread(target=lambda: answers.update(suspend=at.suspend(2).status))
        suspend.start()
        while at.client("GET", "/read").status != 503:
            time.sleep(0.01)
        self.assertEqual(at.info()["state"], "Active")
        self.assertEqual(at.resume(3).status, 204)
        suspend.join(10)
        go.set()
        client.join(10)
        self.assertEqual(answers, {"suspend": 409, "slow": 200})
        self.assertEqual(at.client("POST", "/add").status, 200)

    def test_what_was_let_in_may_change_the_state_while_the_worker_drains(self) -> None:
        worker = tally()
        count = worker.table("late")
        entered, go = threading.Event(), threading.Event()

        @worker.post("/slow", concurrent=True)
        def slow(_: Request) -> object:
            entered.set()
            go.wait(10)
            with worker.transaction():
                count["late"] = 1
            return None

        at = self.serve(worker)
        at.activate(1)
        answers: Dict[str, int] = {}
        client = threading.Thread(target=lambda: answers.update(slow=at.client("POST", "/slow").status))
        client.start()
        entered.wait(10)
        suspend = threading.Thread(target=lambda: answers.update(suspend=at.suspend(2).status))
        suspend.start()
        while at.client("GET", "/read").status != 503:
            time.sleep(0.01)
        go.set()
        client.join(10)
        suspend.join(10)
        self.assertEqual(answers, {"suspend": 204, "slow": 204})
        self.assertEqual(at.state(2)[1]["table.late"], b'["late",1]\n')

    def test_hooks_run_at_the_turns_of_its_life(self) -> None:
        worker = tally()
        told: List[Any] = []
        worker.initial(lambda activation: told.append(("initial", activation.config)))
        worker.on_activate(lambda activation: told.append(("activate", activation.labels, activation.may_miss)))
        worker.on_suspend(lambda reason: told.append(reason))
        worker.on_resume(lambda: told.append("resume"))
        at = self.serve(worker)
        at.activate(1, process={"config": {"a": 1}, "labels": {"b": "c"}}, mayMiss=12)
        for _ in range(2):
            at.suspend(2)
        for _ in range(2):
            at.resume(3)
        self.assertEqual(
            told, [("initial", {"a": 1}), ("activate", {"b": "c"}, 12), Reason.HANDOVER, "resume"], "repeats do nothing"
        )

    def test_a_hook_that_raises_leaves_it_where_it_was(self) -> None:
        worker = tally()
        broken = [True]

        @worker.on_activate
        def activate(_: Activation) -> None:
            if broken[0]:
                raise ValueError("a secret")

        @worker.on_suspend
        def suspend(_: Reason) -> None:
            if broken[0]:
                raise CannotAccept("not now: the printer prints")

        at = self.serve(worker)
        answer = at.activate(1)
        self.assertEqual((answer.status, answer.code, at.info()["state"]), (500, "Internal", "Standby"))
        self.assertNotIn(b"secret", answer.body)
        broken[0] = False
        self.assertEqual(at.activate(1).status, 204)
        broken[0] = True
        answer = at.suspend(2)
        self.assertEqual((answer.status, answer.json["message"]), (422, "not now: the printer prints"))
        self.assertEqual(at.client("POST", "/add").status, 200)
        broken[0] = False
        self.assertEqual(at.suspend(2).status, 204)

    def test_changes_of_its_own_need_an_active_worker(self) -> None:
        worker = Worker()
        count = worker.state(Tally)
        at = self.serve(worker)

        def tick() -> None:
            with worker.transaction():
                count.value.value += 1

        self.assertRaises(NotActive, tick)
        at.activate(1)
        tick()
        self.assertEqual(at.info()["seq"], 1)
        at.suspend(2)
        self.assertRaises(NotActive, tick)
        self.assertEqual(at.state(2)[1]["state"], b'{"value":1}')

    def test_consent_is_asked_while_active(self) -> None:
        worker = tally()
        self.assertEqual(self.serve(worker).ask("POST", "/consent", {"reason": "Handover"}).status, 404)
        asked: List[ConsentRequest] = []

        @worker.consent
        def consent(request: ConsentRequest) -> object:
            asked.append(request)
            return request.forced_at_time is not None

        at = self.serve(worker)
        self.assertTrue(at.info()["consent"])
        self.assertEqual(at.ask("POST", "/consent", {"reason": "Handover"}).code, "WrongState")
        at.activate(1)
        self.assertEqual(at.ask("POST", "/consent", {"reason": "Handover"}).json, {"answer": "Defer"})
        told = {"reason": "Handover", "forcedAtTime": "2030-01-01T00:00:00Z"}
        self.assertEqual(at.ask("POST", "/consent", told).json, {"answer": "Ready"})
        self.assertEqual(asked[1].forced_at_time, "2030-01-01T00:00:00Z")

    def test_sigterm_waits_for_requests_that_run(self) -> None:
        worker = tally()
        entered = threading.Event()

        @worker.post("/slow")
        def slow(_: Request) -> object:
            entered.set()
            time.sleep(0.3)
            return "done\n"

        server = Server(worker, Config(("127.0.0.1", 0), ("127.0.0.1", 0)))
        server.start()
        at = Sidecar(server.control_address, server.listen_address)
        at.activate(1)
        answers: List[int] = []
        client = threading.Thread(target=lambda: answers.append(at.client("POST", "/slow").status))
        client.start()
        entered.wait(10)
        server.stop()
        client.join(10)
        self.assertEqual(answers, [200])
        with self.assertRaises(OSError):
            at.client("GET", "/read")


class CaptureTest(Case):
    def setUp(self) -> None:
        self.at = self.serve(tally())
        self.at.activate(1)

    def add(self, name: str = "nobody") -> int:
        return int(self.at.client("POST", f"/add?name={name}").headers["processhub-seq"])

    def test_a_live_capture_stays_as_it_was_while_the_worker_goes_on(self) -> None:
        self.add("a")
        answer, parts = self.at.state(1)
        self.assertEqual((answer["seq"], answer["vsn"]), (1, "1"))
        self.assertEqual(parts, {"state": b'{"value":1}', "table.names": b'["a",1]\n'})
        self.add("a")
        path = f"/capture/{answer['capture']}"
        self.assertEqual(self.at.ask("GET", path + "/table.names").body, b'["a",1]\n')
        counts = {"parts": [{"name": "state", "bytes": 11}, {"name": "table.names", "bytes": 8}]}
        for _ in range(2):
            self.assertEqual(self.at.ask("DELETE", path).json, counts)
        self.assertEqual(self.at.ask("GET", path + "/state").status, 404)

    def test_every_live_capture_is_one_point_in_time(self) -> None:
        stop = threading.Event()

        def count(name: str) -> None:
            while not stop.is_set():
                self.add(name)

        writers = [threading.Thread(target=count, args=(name,)) for name in "abc"]
        for writer in writers:
            writer.start()
        try:
            for _ in range(20):
                answer, parts = self.at.state(1)
                value = int(parts["state"].split(b":")[1].rstrip(b"}"))
                rows = [int(line.rstrip(b"]").split(b",")[1]) for line in parts["table.names"].splitlines()]
                self.assertEqual((value, max(rows, default=0)), (answer["seq"], answer["seq"]))
        finally:
            stop.set()
            for writer in writers:
                writer.join()

    def test_unless_seq_is_204_while_nothing_changed(self) -> None:
        seq = self.add()
        self.assertEqual(self.at.capture(1, unlessSeq=seq).status, 204)
        self.at.client("GET", "/read")
        self.assertEqual(self.at.capture(1, unlessSeq=seq).status, 204)
        self.add()
        self.assertEqual(self.at.capture(1, unlessSeq=seq).json["seq"], seq + 1)

    def test_a_delta_has_only_what_changed(self) -> None:
        for name in "abc":
            self.add(name)
        self.add("b")
        answer, parts = self.at.state(1, since=3)
        self.assertEqual((answer["since"], answer["seq"]), (3, 4))
        self.assertEqual(parts, {"state": b'{"value":4}', "table.names": b'["b",4]\n'})
        self.assertEqual(self.at.capture(1, since=4).json["parts"], [])
        self.assertNotIn("since", self.at.capture(1, since=5).json, "of another timeline")

    def test_the_capture_of_a_suspended_worker_repeats(self) -> None:
        self.add()
        self.at.suspend(2)
        first, again = self.at.capture(2).json, self.at.capture(2).json
        self.assertEqual(first, again)
        self.at.resume(3)
        self.assertEqual(self.at.ask("GET", f"/capture/{first['capture']}/state").status, 404)

    def test_a_worker_without_parts_has_no_state(self) -> None:
        at = self.serve(Worker())
        at.activate(1)
        at.suspend(2)
        self.assertEqual((at.capture(2).status, at.info()["capture"]), (501, "Suspended"))


class ApplyTest(Case):
    def captured(self) -> Tuple[Any, Dict[str, bytes], Sidecar]:
        at = self.serve(tally())
        at.activate(1)
        for name in "abc":
            at.client("POST", f"/add?name={name}")
        return (*at.state(1), at)

    def test_a_base_and_its_deltas_make_the_state(self) -> None:
        base, parts, source = self.captured()
        source.client("POST", "/add?name=b")
        first, first_parts = source.state(1, since=base["seq"])
        source.suspend(2)
        source.resume(3)
        source.client("POST", "/add?name=d")
        source.suspend(4)
        last, last_parts = source.state(4, since=first["seq"])
        target = self.serve(tally())
        self.assertEqual(target.apply("i-0", parts, base["seq"]).status, 204)
        wrong = target.apply("i-2", last_parts, last["seq"], since=first["seq"])
        self.assertEqual((wrong.status, wrong.code), (409, "WrongBase"))
        for _ in range(2):
            self.assertEqual(target.apply("i-1", first_parts, first["seq"], since=base["seq"]).status, 204)
        self.assertEqual(target.apply("i-2", last_parts, last["seq"], since=first["seq"]).status, 204)
        self.assertEqual(target.info()["seq"], last["seq"])
        self.assertEqual(target.activate(9, False).status, 204)
        self.assertEqual(target.client("GET", "/read").json, {"value": 5, "names": {"a": 1, "b": 4, "c": 3, "d": 5}})
        self.assertEqual(target.client("POST", "/add").headers["processhub-seq"], str(last["seq"] + 1))

    def test_a_delta_that_cannot_be_read_leaves_the_base(self) -> None:
        base, parts, _ = self.captured()
        target = self.serve(tally())
        target.apply("i-0", parts, base["seq"])
        bad = {"state": b'{"value":9}', "table.names": b'["a",true]\n'}
        answer = target.apply("i-1", bad, base["seq"] + 1, since=base["seq"])
        self.assertEqual((answer.status, answer.code), (422, "CannotAccept"))
        self.assertIn("table.names", answer.json["message"])
        self.assertEqual(target.info()["seq"], base["seq"])
        target.activate(9, False)
        self.assertEqual(target.client("GET", "/read").json["value"], 3)

    def test_a_trial_changes_nothing(self) -> None:
        base, parts, _ = self.captured()
        target = self.serve(tally())
        self.assertEqual(target.apply("t", parts, base["seq"], dryRun=True).status, 204)
        self.assertEqual((target.info()["seq"], target.activate(9, False).code), (0, "InitialMismatch"))
        self.assertEqual(target.apply("t", {**parts, "state": b"{}x"}, 1, dryRun=True).status, 422)

    def test_a_state_must_be_whole_and_known(self) -> None:
        base, parts, _ = self.captured()
        target = self.serve(tally())
        for wrong, says in (
            ({"state": parts["state"]}, "no part `table.names`"),
            ({**parts, "table.more": b"[]"}, "part `table.more` is not known"),
            ({**parts, "state": b'{"money":1}'}, "unknown key `money`"),
        ):
            answer = target.apply("i", wrong, 3)
            self.assertEqual(answer.status, 422)
            self.assertIn(says, answer.json["message"])
            target.ask("DELETE", "/import/i")
        answer = target.apply("i", parts, 3, vsn="7")
        self.assertEqual((answer.status, answer.code), (422, "CannotAccept"))
        self.assertIn("accepts_from", answer.json["message"])
        self.assertEqual(self.serve(tally(drops=["table.more"])).apply("i", {**parts, "table.more": b"[]"}, 3).status, 204)

    def test_a_state_of_another_incarnation_is_merged_or_refused(self) -> None:
        base, parts, _ = self.captured()
        other = {"state": b'{"value":5}', "table.names": b'["a",9]\n["z",1]\n'}
        plain = self.serve(tally())
        plain.apply("i", parts, base["seq"])
        self.assertEqual(plain.apply("m", other, 8, reason="Merge").status, 422)
        worker = tally()

        @worker.merge
        def merge(own: Dict[str, Any], other: Dict[str, Any]) -> Dict[str, Any]:
            if other["state"]["value"] == 0:
                raise CannotAccept("the other one has nothing")
            value = own["state"]["value"] + other["state"]["value"]
            return {"state": {"value": value}, "table.names": {**other["table.names"], **own["table.names"]}}

        target = self.serve(worker)
        self.assertEqual(target.apply("m", other, 8, reason="Merge").code, "WrongBase")
        target.apply("i", parts, base["seq"])
        self.assertEqual(target.apply("m", other, 8, reason="Merge", since=3).code, "WrongBase")
        nothing = target.apply("m", {**other, "state": b'{"value":0}'}, 8, reason="Merge")
        self.assertEqual((nothing.status, nothing.json["message"]), (422, "the other one has nothing"))
        self.assertEqual(target.apply("m", other, 8, reason="Merge", dryRun=True).status, 204)
        for _ in range(2):
            self.assertEqual(target.apply("m", other, 8, reason="Merge").status, 204)
        target.activate(9, False)
        self.assertEqual(target.client("GET", "/read").json, {"value": 8, "names": {"a": 1, "b": 2, "c": 3, "z": 1}})

    def test_a_delta_of_a_version_that_is_not_named_is_on_the_wrong_base(self) -> None:
        base, parts, _ = self.captured()
        target = self.serve(tally())
        target.apply("i", parts, base["seq"])
        self.assertEqual(target.apply("d", {}, 4, since=3, vsn="7").code, "WrongBase")

    def test_slices_are_bounded_and_come_only_in_standby(self) -> None:
        base, parts, source = self.captured()
        self.assertEqual(source.ask("PUT", "/import/i/state?offset=0", b"x").code, "WrongState")
        target = self.serve(tally())
        large = target.ask("PUT", "/import/i/state?offset=0", bytes((8 << 20) + 1))
        self.assertEqual((large.status, large.code), (413, "TooLarge"))
        self.assertEqual(target.ask("PUT", "/import/i/state?offset=0", bytes(8 << 20)).status, 204)
        self.assertEqual(target.ask("PUT", "/import/i/state?offset=x", b"x").code, "BadRequest")
        self.assertEqual(target.ask("PUT", "/import/i/Not%20a%20part?offset=0", b"x").code, "BadRequest")
        gap = target.ask("PUT", "/import/i/state?offset=7", b"x")
        self.assertEqual((gap.code, gap.json["have"]), ("WrongOffset", 8 << 20))
        self.assertEqual(target.ask("POST", "/suspend", b"{" + b" " * (1 << 20)).status, 413)

    def test_parts_by_hand_are_restored_as_they_were_captured(self) -> None:
        def make(blob: bytes) -> Tuple[Worker, Dict[str, Any]]:
            worker = Worker(vsn="1")
            held: Dict[str, Any] = {"blob": blob, "json": [len(blob)]}
            document, raw = worker.part("state"), worker.part("blob", raw=True)
            document.capture(lambda: held["json"])
            raw.capture(lambda: held["blob"])
            document.restore(lambda value: held.update(json=value))

            @raw.restore
            def restore(value: bytes) -> None:
                if value == b"bad":
                    raise ValueError("no such blob")
                held["blob"] = value

            return worker, held

        source = self.serve(make(b"\x00\xff")[0])
        source.activate(1)
        self.assertEqual((source.info()["capture"], source.info()["deltaFrom"]), ("Suspended", []))
        self.assertEqual(source.capture(1).code, "WrongState")
        source.suspend(2)
        answer, parts = source.state(2)
        worker, held = make(b"")
        target = self.serve(worker)
        self.assertEqual(target.apply("i", parts, answer["seq"], since=0).code, "WrongBase")
        self.assertEqual(target.apply("i", {**parts, "blob": b"bad"}, answer["seq"]).status, 422)
        self.assertEqual(target.activate(9, False).code, "InitialMismatch", "half a state is none")
        self.assertEqual(target.apply("i", parts, answer["seq"]).status, 204)
        self.assertEqual(held, {"blob": b"\x00\xff", "json": [2]})


class CallsTest(Case):
    def test_other_calls_and_methods_are_told_apart(self) -> None:
        at = self.serve(tally())
        self.assertEqual((at.ask("GET", "/no-such-call").status, at.ask("GET", "/suspend").status), (404, 405))
        self.assertEqual(at.ask("GET", "/capture/x/y").code, "NotFound")

    def test_info_is_answered_while_a_handler_keeps_the_state_busy(self) -> None:
        worker = tally()
        entered, go = threading.Event(), threading.Event()

        @worker.post("/busy")
        def busy(_: Request) -> object:
            entered.set()
            go.wait(10)
            return None

        @worker.load
        def load() -> int:
            return 7

        at = self.serve(worker)
        at.activate(1)
        client = threading.Thread(target=lambda: at.client("POST", "/busy"))
        client.start()
        entered.wait(10)
        self.assertEqual((at.info()["state"], at.info()["load"]), ("Active", 7))
        go.set()
        client.join(10)
