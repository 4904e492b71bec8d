"""The state machine: epochs, repeats, and which call fits which state. The cases are those of the Rust side."""

from __future__ import annotations

import unittest
from typing import Any, Callable, Optional

from processhub.contract import ApplyRequest, CodeChangeRequest, Direction, Reason, WorkerState
from processhub.errors import Refusal
from processhub.machine import Machine


def request(seq: int = 7, since: Optional[int] = None, epoch: int = 3) -> ApplyRequest:
    return ApplyRequest(epoch, Reason.HANDOVER, "1", Direction.UP, "null", seq, since, (), False)


def change(epoch: int) -> CodeChangeRequest:
    return CodeChangeRequest(epoch, "1", "2", Direction.UP, "null")


def active(epoch: int = 1) -> Machine:
    machine = Machine()
    machine.activate(epoch, True)
    machine.activated(epoch)
    return machine


def suspended(epoch: int = 2) -> Machine:
    machine = active()
    machine.suspend(epoch)
    machine.suspended(epoch, True)
    return machine


class MachineTest(unittest.TestCase):
    def refused(self, code: str, work: Callable[..., Any], *arguments: Any) -> Refusal:
        with self.assertRaises(Refusal) as caught:
            work(*arguments)
        self.assertEqual(caught.exception.code.value, code)
        return caught.exception

    def test_the_way_of_a_life(self) -> None:
        machine = Machine()
        self.assertEqual((machine.state, machine.epoch), (WorkerState.STANDBY, 0))
        self.assertTrue(machine.activate(1, True))
        machine.activated(1)
        self.assertEqual(machine.state, WorkerState.ACTIVE)
        self.assertTrue(machine.suspend(2))
        self.assertEqual(machine.state, WorkerState.ACTIVE, "it drains")
        self.assertEqual(machine.closed_to_clients(), WorkerState.SUSPENDED)
        self.assertTrue(machine.drained(2))
        machine.suspended(2, True)
        self.assertEqual(machine.state, WorkerState.SUSPENDED)
        self.assertTrue(machine.resume(3))
        machine.resumed(3)
        self.assertIsNone(machine.closed_to_clients())

    def test_a_repeat_does_nothing(self) -> None:
        self.assertFalse(active(1).activate(1, True))
        machine = suspended(2)
        self.assertFalse(machine.suspend(2))
        machine.resume(3)
        machine.resumed(3)
        self.assertFalse(machine.resume(3))

    def test_a_lower_epoch_is_stale_and_told_where_the_worker_stands(self) -> None:
        refusal = self.refused("StaleEpoch", active(5).suspend, 4)
        self.assertEqual((refusal.state, refusal.epoch, refusal.status), ("Active", 5, 409))

    def test_another_command_with_a_used_epoch_is_stale(self) -> None:
        self.refused("StaleEpoch", active(5).suspend, 5)
        self.refused("StaleEpoch", suspended(6).resume, 6)

    def test_a_late_suspend_cannot_orphan_a_worker(self) -> None:
        machine = suspended(6)
        machine.resume(7)
        machine.resumed(7)
        self.refused("StaleEpoch", machine.suspend, 6)
        self.assertEqual(machine.state, WorkerState.ACTIVE)

    def test_a_resume_calls_off_a_suspend_that_drains(self) -> None:
        machine = active()
        machine.suspend(2)
        self.assertFalse(machine.resume(3))
        self.refused("StaleEpoch", machine.drained, 2)
        machine.suspended(2, True)
        self.assertEqual(machine.state, WorkerState.ACTIVE)

    def test_a_suspend_that_failed_can_be_asked_for_again(self) -> None:
        machine = active()
        machine.suspend(2)
        machine.suspended(2, False)
        self.assertEqual(machine.state, WorkerState.ACTIVE)
        self.assertTrue(machine.suspend(2))

    def test_an_empty_state_never_passes_for_the_process_s(self) -> None:
        self.refused("InitialMismatch", Machine().activate, 1, False)
        machine = Machine()
        machine.applied("a", request())
        self.refused("InitialMismatch", machine.activate, 3, True)
        self.assertTrue(machine.activate(3, False))

    def test_what_does_not_fit_the_state_is_refused(self) -> None:
        for work in (lambda m: m.suspend(1), lambda m: m.resume(1), lambda m: m.capture(1, True),
                     lambda m: m.code_change(change(1)), lambda m: m.consent()):  # fmt: skip
            self.refused("WrongState", work, Machine())
        for work in (lambda m: m.upload(), lambda m: m.apply("a", request()), lambda m: m.capture(2, False),
                     lambda m: m.code_change(change(9))):  # fmt: skip
            self.refused("WrongState", work, active())
        self.refused("WrongState", suspended().activate, 9, True)
        self.refused("WrongState", suspended().consent)

    def test_a_live_worker_is_captured_while_it_serves(self) -> None:
        active().capture(1, True)
        suspended().capture(2, False)

    def test_a_code_change_again_does_nothing_until_the_worker_resumes(self) -> None:
        machine = suspended(2)
        self.assertTrue(machine.code_change(change(2)))
        machine.code_changed(change(2))
        self.assertFalse(machine.code_change(change(2)))
        machine.resume(3)
        machine.resumed(3)
        machine.suspend(4)
        machine.suspended(4, True)
        self.assertTrue(machine.code_change(change(4)))
        self.refused("StaleEpoch", machine.code_change, change(2))

    def test_a_worker_that_drains_is_not_asked_for_its_consent(self) -> None:
        machine = active()
        machine.consent()
        machine.suspend(2)
        self.refused("WrongState", machine.consent)

    def test_an_apply_again_does_nothing_and_another_one_replaces(self) -> None:
        machine = Machine()
        self.assertTrue(machine.apply("a", request()))
        machine.applied("a", request())
        self.assertFalse(machine.apply("a", request()))
        self.assertTrue(machine.apply("b", request()))

    def test_a_delta_is_taken_on_exactly_its_base(self) -> None:
        machine = Machine()
        self.refused("WrongBase", machine.apply, "a", request(9, since=7))
        machine.applied("a", request(7))
        for base in (6, 8):
            self.refused("WrongBase", machine.apply, "b", request(9, since=base))
        self.assertTrue(machine.apply("b", request(9, since=7)))
        machine.applied("b", request(9, since=7))
        self.assertFalse(machine.apply("b", request(9, since=7)), "its answer may have been lost")
        self.refused("WrongBase", machine.apply, "c", request(10, since=7))
        self.assertTrue(machine.apply("c", request(10, since=9)))
