"""What is tracked: values, tables, transactions and their numbers."""

from __future__ import annotations

import json
import sys
import textwrap
import types
import unittest
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple, Union

from processhub import DROP, CannotAccept, Down, NotActive, Worker, codec, table as table_module
from processhub.clock import Clock
from processhub.parts import Change
from processhub.table import Table


@dataclass
class Line:
    name: str
    amount: int = 1


@dataclass
class Order:
    lines: List[Line] = field(default_factory=list)
    note: Optional[str] = None
    price: float = 0.0
    at: Tuple[int, int] = (0, 0)
    tags: Dict[str, Union[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError(f"the price {self.price} is secret")


def writable() -> Clock:
    clock = Clock()
    clock.writable = True
    return clock


class CodecTest(unittest.TestCase):
    def test_a_dataclass_comes_back_as_it_was(self) -> None:
        order = Order([Line("a"), Line("b", 2)], None, 1.5, (3, 4), {"x": 1, "y": "z"})
        self.assertEqual(codec.decoder(Order)(codec.loads(codec.dumps(order))), order)

    def test_what_does_not_fit_is_refused_by_its_place_and_never_quoted(self) -> None:
        for value, says in (
            ({"lines": [{"name": 3}]}, "lines[].name: not of type str"),
            ({"lines": [{}]}, "lines[]: key `name` is missing"),
            ({"money": 3}, "unknown key `money`"),
            ({"price": True}, "price: not of type float"),
            ({"at": [1]}, "at: not a list of 2"),
            ({"note": 7}, "note"),
            ({"price": -55}, "Order refuses it with ValueError"),
            ([], "not an object"),
        ):
            with self.assertRaises(codec.BadValue) as caught:
                codec.decoder(Order)(value)
            self.assertIn(says, str(caught.exception))
            self.assertNotIn("55", str(caught.exception))

    def test_types_are_those_of_the_module_that_defined_them(self) -> None:
        module = types.ModuleType("gone")
        sys.modules["gone"] = module
        source = """
            from __future__ import annotations
            from dataclasses import dataclass
            from typing import List
            @dataclass
            class Inner:
                n: int
            @dataclass
            class Outer:
                inners: List[Inner]
        """
        exec(textwrap.dedent(source), module.__dict__)
        decode = codec.decoder(module.Outer)
        del sys.modules["gone"]
        self.assertEqual(decode({"inners": [{"n": 1}]}), module.Outer([module.Inner(1)]))
        with self.assertRaises(codec.BadValue):
            decode({"inners": [{"n": "1"}]})

    def test_what_json_would_change_is_refused(self) -> None:
        for value in ({1: "a"}, [{2: 3}], float("nan"), {"a"}):
            with self.assertRaises((TypeError, ValueError)):
                codec.dumps(value)


class TableTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = writable()
        self.table: Table[Any] = Table("table.t", self.clock)

    def lines(self, since: Optional[int] = None) -> Any:
        return sorted(json.loads(line) for line in self.table.lines(since) or [])

    def test_it_is_a_dict_that_gives_out_copies(self) -> None:
        self.table["a"] = {"n": [1]}
        self.table["a"]["n"].append(2)
        self.assertEqual(self.table["a"], {"n": [1]})
        with self.table.edit("a") as value:
            value["n"].append(2)
        with self.table.edit("b", list) as value:
            value.append(7)
        self.assertEqual(dict(self.table), {"a": {"n": [1, 2]}, "b": [7]})
        self.assertEqual((self.table.pop("b"), "b" in self.table, len(self.table)), ([7], False, 1))
        with self.assertRaises(KeyError):
            del self.table["b"]
        with self.assertRaises(TypeError):
            self.table[3] = 1  # type: ignore[index]

    def test_a_delta_is_what_changed_since_a_number(self) -> None:
        for n in range(4):
            self.table[str(n)] = n
        self.assertEqual(self.clock.seq, 4)
        self.assertEqual(self.lines(), [["0", 0], ["1", 1], ["2", 2], ["3", 3]])
        self.table["0"] = 9
        del self.table["1"]
        self.assertEqual(self.lines(4), [["0", 9], ["1"]])
        self.assertEqual(self.lines(3), [["0", 9], ["1"], ["3", 3]])
        self.assertIsNone(self.table.lines(6))

    def test_the_same_value_again_is_no_change(self) -> None:
        self.table["a"] = {"x": 1}
        self.table["a"] = {"x": 1}
        self.assertEqual(self.clock.seq, 1)

    def test_with_too_many_rows_gone_older_deltas_are_not_known(self) -> None:
        before, table_module.MAX_GONE = table_module.MAX_GONE, 3
        try:
            for n in range(4):
                self.table[str(n)] = n
            for n in range(4):
                del self.table[str(n)]
        finally:
            table_module.MAX_GONE = before
        self.assertEqual((self.clock.seq, self.table.floor), (8, 8))

    def test_rows_are_refused_by_their_line_and_nothing_changes(self) -> None:
        self.table["a"] = 1
        good = b'["b",2]\n'
        for bad, delta in ((b"\xff", False), (b"{}", False), (b'["a"]', False), (b"[1,2]", True), (b'["a",1,2]', True)):
            with self.assertRaises(CannotAccept) as caught:
                self.table.decode(good + bad, delta, None)
            self.assertIn("part `table.t` is not as this version writes it: line 2", caught.exception.message)
        self.assertEqual(dict(self.table), {"a": 1})

    def test_a_state_replaces_and_a_delta_adds_and_removes(self) -> None:
        self.table["gone"] = 1
        self.table.decode(b'["a",1]\n["b",2]\n', False, None)(7)
        self.assertEqual((dict(self.table), self.table.floor), ({"a": 1, "b": 2}, 7))
        self.table.decode(b'["a"]\n["c",3]\n', True, None)(9)
        self.assertEqual(dict(self.table), {"b": 2, "c": 3})

    def test_rows_are_converted_one_by_one(self) -> None:
        @self.table.convert
        def convert(old_vsn: Any, key: str, value: Any, extra: Any) -> object:
            return DROP if value == 0 else [old_vsn, value + extra]

        self.table.decode(b'["a",1]\n["b",0]\n', False, Change(Down("2"), 10, None))(1)
        self.assertEqual(dict(self.table), {"a": [["2"], 11]})

    def test_values_of_a_type_are_checked_where_they_are_written(self) -> None:
        lines: Table[Line] = Table("table.l", self.clock, Line)
        lines["a"] = Line("x", 2)
        self.assertEqual(lines["a"], Line("x", 2))
        with self.assertRaises(codec.BadValue):
            lines["b"] = Line("x", "many")  # type: ignore[arg-type]
        self.assertEqual(list(lines), ["a"])

    def test_nothing_changes_outside_of_active(self) -> None:
        self.clock.writable = False
        with self.assertRaises(NotActive):
            self.table["a"] = 1
        self.assertEqual((len(self.table), self.clock.seq), (0, 0))


class TransactionTest(unittest.TestCase):
    def setUp(self) -> None:
        self.worker = Worker()
        self.state = self.worker.state(dict)
        self.table = self.worker.table("t")
        self.clock = self.worker.clock
        self.clock.writable = True

    def test_everything_in_it_has_one_number(self) -> None:
        with self.clock.transaction():
            self.state.value["a"] = [1]
            self.table["x"] = 1
            with self.clock.transaction():
                self.table["y"] = 2
        self.assertEqual(self.clock.seq, 1)
        self.assertEqual(self.worker.base(0), 0)
        self.assertEqual((self.state.lines(0), self.table.lines(1)), ([b'{"a":[1]}'], None))

    def test_it_is_no_change_if_nothing_changed(self) -> None:
        with self.clock.transaction():
            self.state.value["a"] = 1
            del self.state.value["a"]
        self.assertEqual(self.clock.seq, 0)

    def test_what_raises_changes_nothing(self) -> None:
        with self.clock.transaction():
            self.state.value["a"] = [1]
            self.table.update({"x": 1, "y": 2})
        with self.assertRaises(RuntimeError):
            with self.clock.transaction():
                self.state.value["a"].append(2)
                self.table["x"] = 9
                del self.table["y"]
                self.table["z"] = 3
                raise RuntimeError
        self.assertEqual((self.state.value, dict(self.table)), ({"a": [1]}, {"x": 1, "y": 2}))
        delta = sorted(json.loads(line) for line in self.table.lines(1) or [])
        self.assertEqual(delta, [["x", 1], ["y", 2], ["z"]], "sent again as they were")

    def test_a_state_that_could_not_be_read_back_is_undone_and_raised(self) -> None:
        worker = Worker()
        line = worker.state(lambda: Line("a"))
        for bad in ("many", {1}, float("inf")):
            with self.assertRaises((codec.BadValue, TypeError, ValueError)):
                with worker.clock.transaction():
                    line.value.amount = bad  # type: ignore[assignment]
            self.assertEqual((line.value, worker.clock.seq), (Line("a"), 0))

    def test_a_change_that_nobody_told_of_is_found_by_the_next_look(self) -> None:
        self.state.value["a"] = 1
        self.assertEqual(self.clock.settle(), 1)
        self.assertEqual(self.clock.settle(), 1)

    def test_parts_have_names_of_their_own(self) -> None:
        with self.assertRaises(ValueError):
            self.worker.table("t")
        with self.assertRaises(ValueError):
            self.worker.table("Not a name")
        with self.assertRaises(ValueError):
            Worker(vsn="x" * 129)
