"""Version 1: the account holds `money`, and says how much there is as a bare number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from processhub import CannotAccept, Down, HttpError, OldVsn, Request, Worker

worker = Worker(vsn="1", accepts_from=["2"])


@dataclass
class Account:
    money: int = 0


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
        account.value.money += amount
        if booking is not None:
            bookings[booking] = amount
    return account.value.money


@worker.get("/balance")
def balance(_: Request) -> object:
    return account.value.money


@worker.get("/bookings")
def booked(_: Request) -> object:
    return dict(bookings)


@worker.get("/healthz", probe=True)
def healthz(_: Request) -> object:
    return "ok\n"


@worker.code_change
def code_change(old_vsn: OldVsn, state: Any, extra: Any) -> object:
    """Back from version 2: `{down, "2"}` of the article."""
    if old_vsn == Down("2"):
        return {"money": state["salary"]}
    raise CannotAccept(f"version 1 cannot be reached from {old_vsn!r}: only back from 2")
