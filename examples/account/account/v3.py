"""Version 3: there is a currency. A state of version 1 comes through 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from processhub import HttpError, Request, Worker

worker = Worker(vsn="3")


@dataclass
class Account:
    salary: int = 0
    currency: str = "EUR"


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
    return {"salary": account.value.salary, "currency": account.value.currency}


@worker.put("/currency")
def convert(request: Request) -> object:
    """Another currency, as text. Version 2 then refuses the state: it cannot hold it."""
    if not (request.text.isascii() and request.text.isalpha() and len(request.text) == 3):
        raise HttpError(400, "a currency has three letters")
    account.value.currency = request.text.upper()
    return None


@worker.get("/balance")
def balance(_: Request) -> object:
    return {"salary": account.value.salary, "currency": account.value.currency}


@worker.get("/bookings")
def booked(_: Request) -> object:
    return dict(bookings)


@worker.get("/healthz", probe=True)
def healthz(_: Request) -> object:
    return "ok\n"


@worker.step("1", "2")
def rename(state: Any, extra: Any) -> object:
    """`money` becomes `salary`, with the bonus for everyone who comes along, as in version 2."""
    bonus = extra.get("bonus", 0) if isinstance(extra, dict) else 0
    return {"salary": state["money"] + bonus}


@worker.step("2", "3")
def add_currency(state: Any, extra: Any) -> object:
    """There was no other currency before."""
    return {"salary": state["salary"], "currency": "EUR"}
