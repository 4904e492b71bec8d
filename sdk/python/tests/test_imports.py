"""Slices: the cases are those of the Rust side."""

from __future__ import annotations

import unittest
from typing import List

from processhub.contract import MAX_INTEGER, MAX_PARTS, MAX_SLICE, PartSize
from processhub.errors import Refusal
from processhub.imports import Import


class ImportTest(unittest.TestCase):
    def setUp(self) -> None:
        self.import_ = Import()

    def refused(self, code: str, part: str, offset: int, piece: bytes, name: str = "a") -> Refusal:
        with self.assertRaises(Refusal) as caught:
            self.import_.put(name, part, offset, piece)
        self.assertEqual(caught.exception.code.value, code)
        return caught.exception

    def incomplete(self, expected: List[PartSize], name: str = "a") -> None:
        with self.assertRaises(Refusal) as caught:
            self.import_.complete(name, expected)
        self.assertEqual(caught.exception.code.value, "Incomplete")

    def test_slices_in_order_make_a_part(self) -> None:
        self.import_.put("a", "state", 0, b"12345678")
        self.import_.put("a", "state", 8, b"9abc")
        self.import_.put("a", "table.x", 0, b"xyz")
        parts = self.import_.complete("a", [PartSize("state", 12), PartSize("table.x", 3), PartSize("empty", 0)])
        self.assertEqual(parts, {"state": b"123456789abc", "table.x": b"xyz", "empty": b""})

    def test_a_gap_is_told_where_to_go_on(self) -> None:
        self.assertEqual(self.refused("WrongOffset", "state", 4, b"1234").have, 0)
        self.import_.put("a", "state", 0, b"12345678")
        for offset in (4, 9, 100):
            self.assertEqual(self.refused("WrongOffset", "state", offset, b"x").have, 8)

    def test_the_last_slice_may_come_again_and_only_that(self) -> None:
        self.import_.put("a", "state", 0, b"12345678")
        self.import_.put("a", "state", 8, b"12345678")
        self.import_.put("a", "state", 8, b"12345678")
        self.refused("WrongOffset", "state", 8, b"1234567")
        self.import_.put("a", "state", 16, b"x")
        self.refused("WrongOffset", "state", 8, b"12345678")
        self.assertEqual(self.import_.complete("a", [PartSize("state", 17)])["state"], b"12345678" * 2 + b"x")

    def test_offset_zero_starts_over(self) -> None:
        self.import_.put("a", "state", 0, b"first")
        self.import_.put("a", "state", 0, b"f")
        self.assertEqual(self.refused("WrongOffset", "state", 5, b"x").have, 1)
        self.assertEqual(self.import_.complete("a", [PartSize("state", 1)]), {"state": b"f"})

    def test_only_exactly_the_announced_parts_are_complete(self) -> None:
        self.import_.put("a", "state", 0, b"12345678")
        for wrong in ([PartSize("state", 9)], [PartSize("state", 7)], [], [PartSize("state", 8), PartSize("b", 1)]):
            self.incomplete(wrong)
        self.incomplete([PartSize("state", 8)], "another")

    def test_another_import_ends_the_first_but_a_stray_slice_ends_nothing(self) -> None:
        self.import_.put("a", "state", 0, b"12")
        self.refused("WrongOffset", "state", 2, b"34", name="b")
        self.import_.put("a", "state", 2, b"34")
        self.import_.put("b", "state", 0, b"x")
        self.assertEqual(self.refused("WrongOffset", "state", 4, b"56").have, 0)

    def test_slices_parts_and_offsets_are_bounded(self) -> None:
        self.refused("TooLarge", "state", 0, bytes(MAX_SLICE + 1))
        self.refused("BadRequest", "state", MAX_INTEGER, b"x")
        for n in range(MAX_PARTS):
            self.import_.put("a", f"p{n}", 0, b"x")
        self.refused("TooLarge", "more", 0, b"x")
        self.import_.put("a", "p0", 1, b"y")
