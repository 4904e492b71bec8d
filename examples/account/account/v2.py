"""Version 2: `money` has become `salary`, and the answer says what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from processhub import CannotAccept, Down, HttpError, OldVsn, Request, Worker

worker = Worker(vsn="2", accepts_from=["1", "3"])


@dataclass
class Account:
    salary: int = 0


account = worker.state(Account)
bookings = worker.table("bookings", int)


@worker.post("/deposit")
def deposit(request: Request) -> object:
    """`{"amount": 5}`, and `"id"` for a deposit that may be asked for twice: it is booked once."""
    body = request.json()
    amount = body.get("amount") if isinstance(body, dict) else None
    if not isinstance(amount, int) or isinstance(amount, bool) or amount < 1:
        raise HttpError(400, '"amount" is not a number above 0')
    booking = body.get("id")
    if booking is not None and not isinstance(booking, str):
        raise HttpError(400, '"id" is not a text')
    if booking is None or booking not in bookings:
        account.value.salary += amount
        if booking is not None:
            bookings[booking] = amount
    return {"salary": account.value.salary}


@worker.get("/balance")
def balance(_: Request) -> object:
    return {"salary": account.value.salary}


@worker.get("/bookings")
def booked(_: Request) -> object:
    return dict(bookings)


@worker.get("/healthz", probe=True)
def healthz(_: Request) -> object:
    return "ok\n"


@worker.code_change
def code_change(old_vsn: OldVsn, state: Any, extra: Any) -> object:
    """Up from 1, and back from 3. `extra` is what the hub's upgrade passes: a bonus for everyone who comes along."""
    if old_vsn == "1":
        bonus = extra.get("bonus", 0) if isinstance(extra, dict) else 0
        return {"salary": state["money"] + bonus}
    if old_vsn == Down("3"):
        if state["currency"] != "EUR":
            raise CannotAccept("version 2 knows no currency but EUR: change the account's currency first")
        return {"salary": state["salary"]}
    raise CannotAccept(f"version 2 cannot be reached from {old_vsn!r}: only up from 1 and back from 3")
