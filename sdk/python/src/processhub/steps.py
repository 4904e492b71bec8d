"""From a state of one version to that of another, through those between."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Dict, List, Optional, Tuple

from .contract import Down, OldVsn

Convert = Callable[[Any, Any], object]


def _vsn(old_vsn: OldVsn) -> str:
    return old_vsn.vsn if isinstance(old_vsn, Down) else old_vsn


class Steps:
    """Conversions, each from one version to a neighbour, and the ways that they make to this version."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._steps: List[Tuple[str, str, Convert]] = []

    def add(self, origin: str, to: str, convert: Convert) -> None:
        """One more."""
        if any(step[:2] == (origin, to) for step in self._steps):
            raise ValueError(f"there is a step from `{origin}` to `{to}` already")
        self._steps.append((origin, to, convert))

    def reached(self) -> Dict[str, Tuple[str, Convert]]:
        """The versions from which there is a way, nearest first, with the first step of each."""
        first: Dict[str, Tuple[str, Convert]] = {}
        waiting = deque([self._to])
        while waiting:
            at = waiting.popleft()
            for origin, to, convert in self._steps:
                if to == at and origin != self._to and origin not in first:
                    first[origin] = (to, convert)
                    waiting.append(origin)
        return first

    def way(self, old_vsn: OldVsn) -> Optional[Callable[[OldVsn, Any, Any], object]]:
        """A `code_change` that goes the whole way; None where there is none."""
        first = self.reached()
        if _vsn(old_vsn) not in first:
            return None

        def code_change(old_vsn: OldVsn, state: Any, extra: Any) -> object:
            at = _vsn(old_vsn)
            while at != self._to:
                at, convert = first[at]
                state = convert(state, extra)
            return state

        return code_change
