"""Bodies, and what is told of refusals."""

from __future__ import annotations

import json
import unittest
from typing import Any, Callable

from processhub.contract import (
    MAX_INTEGER,
    Body,
    parse_activate,
    parse_apply,
    parse_capture,
    part_name,
    plain_name,
)
from processhub.errors import Code, Refusal, clean

APPLY = {"epoch": 3, "reason": "CodeChange", "vsn": "1.8", "direction": "Down", "extra": {"b": 1, "a": 2}, "seq": 7,
         "since": 4, "parts": [{"name": "state", "bytes": 9}], "dryRun": True, "more": "unknown"}  # fmt: skip


def body(value: object) -> Body:
    return Body(json.dumps(value).encode())


class ContractTest(unittest.TestCase):
    def refused(self, work: Callable[..., Any], *arguments: Any) -> str:
        with self.assertRaises(Refusal) as caught:
            work(*arguments)
        self.assertEqual((caught.exception.code, caught.exception.status), (Code.BAD_REQUEST, 400))
        return caught.exception.message

    def test_a_body_is_read_by_the_names_of_the_contract(self) -> None:
        request = parse_apply(body(APPLY))
        told = (request.epoch, request.reason.value, request.vsn, request.direction.value)
        self.assertEqual(told, (3, "CodeChange", "1.8", "Down"))
        self.assertEqual((request.seq, request.since, request.parts[0].bytes, request.dry_run), (7, 4, 9, True))
        self.assertEqual(json.loads(request.extra), {"a": 2, "b": 1})
        self.assertEqual(request, parse_apply(body({**APPLY, "extra": {"a": 2, "b": 1}})), "order says nothing")
        capture = parse_capture(body({"epoch": 1, "purpose": "Checkpoint", "unlessSeq": 5}))
        self.assertEqual((capture.since, capture.unless_seq), (None, 5))
        process = {"config": {"a": 1}, "labels": {"b": "c"}}
        told = {"epoch": 1, "reason": "Crash", "initial": False, "process": process, "mayMiss": 12}
        activation = parse_activate(body(told))
        self.assertEqual((activation.config, activation.labels, activation.may_miss), ({"a": 1}, {"b": "c"}, 12))

    def test_what_is_not_the_contract_s_is_refused_by_its_field(self) -> None:
        good = {"name": "a", "bytes": 1}
        for field, values in {
            "epoch": [None, -1, "7", True, 1.0, MAX_INTEGER + 1],
            "reason": [None, "handover", 3],
            "vsn": [3, "x" * 129],
            "direction": ["Sideways"],
            "seq": [None, -1],
            "since": [-1, "x"],
            "parts": [None, [{"name": "a"}], [{"name": "a", "bytes": -1}], [good] * 2, [3], [good] * 1025],
            "dryRun": ["yes", 1],
        }.items():
            for value in values:
                self.assertIn(f"`{field}", self.refused(parse_apply, body({**APPLY, field: value})), (field, value))
        for raw in (b"", b"not json", b"[1]", b"\xff", b"{\"epoch\": NaN}", b"[" * 100_000):
            self.refused(Body, raw)

    def test_names_keep_to_their_alphabet(self) -> None:
        for good in ("state", "table.orders", "0-_.", "x" * 63):
            self.assertEqual(part_name(good), good)
        for bad in ("", ".", "..", "State", "a/b", "é", "a\n", "x" * 64):
            self.refused(part_name, bad)
        for bad in ("", "a.b", "x" * 65, "a%2f"):
            self.refused(plain_name, bad)

    def test_a_message_is_one_short_line_whatever_came_in(self) -> None:
        self.assertEqual(clean("  two\nlines\x1b[2J "), "two lines [2J")
        self.assertEqual(len(clean("é" * 2000).encode()), 1024)
        clean("\ud800")
