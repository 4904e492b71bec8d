"""A state on its way in: slices become parts.

A part grows only at its end; offset 0 starts it over. The slice that came last may come again, because its answer may
have been lost: an import's name stands for one captured state, so the same place holds the same bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence

from .contract import MAX_INTEGER, MAX_PARTS, MAX_SLICE, PartSize
from .errors import Code, Refusal


@dataclass
class _Part:
    have: int = 0
    last: int = 0
    pieces: List[bytes] = field(default_factory=list)


class Import:
    """The one import that is under way. A slice of another import ends it: the sidecar only begins a new one when it gave
    the old one up, and may have forgotten its name."""

    def __init__(self) -> None:
        self._name: Optional[str] = None
        self._parts: Dict[str, _Part] = {}

    def put(self, name: str, part: str, offset: int, piece: bytes) -> None:
        """Stores one slice, or refuses it and says how much of the part is there."""
        parts = self._parts if name == self._name else {}
        again = self._again(parts, part, offset, len(piece))
        if name != self._name:
            # Only now: a stray slice in mid-part ends nothing.
            self._name, self._parts = name, {}
        if again:
            return
        if offset == 0:
            self._parts[part] = _Part()
        held = self._parts[part]
        held.pieces.append(piece)
        held.have, held.last = offset + len(piece), offset

    @staticmethod
    def _again(parts: Dict[str, _Part], part: str, offset: int, length: int) -> bool:
        if length > MAX_SLICE:
            message = f"the slice has {length} bytes, at most {MAX_SLICE} are taken at once: send smaller slices"
            raise Refusal(Code.TOO_LARGE, message)
        end = offset + length
        if end > MAX_INTEGER:
            raise Refusal(Code.BAD_REQUEST, "`offset` and length exceed 2^53 - 1")
        if part not in parts and len(parts) >= MAX_PARTS:
            raise Refusal(Code.TOO_LARGE, f"an import has at most {MAX_PARTS} parts: use fewer parts")
        progress = parts.get(part, _Part())
        if offset in (0, progress.have):
            return False
        if offset == progress.last and end == progress.have:
            return True
        message = f"part `{part}` has {progress.have} bytes, the slice begins at {offset}: continue at `have`"
        raise Refusal(Code.WRONG_OFFSET, message, have=progress.have)

    def complete(self, name: str, expected: Sequence[PartSize]) -> Dict[str, bytes]:
        """The bytes of each part, if what came in is exactly `expected`. A part of no bytes needs no slice."""
        parts = self._parts if name == self._name else {}
        for part in expected:
            have = parts[part.name].have if part.name in parts else 0
            if have != part.bytes:
                message = f"part `{part.name}` has {have} of {part.bytes} bytes: upload it whole"
                raise Refusal(Code.INCOMPLETE, message)
        wanted = {part.name for part in expected}
        for part_name in parts:
            if part_name not in wanted:
                raise Refusal(Code.INCOMPLETE, f"part `{part_name}` was uploaded and `parts` does not name it")
        return {part.name: b"".join(parts[part.name].pieces) if part.name in parts else b"" for part in expected}

    def delete(self, name: str) -> None:
        """Forgets an import."""
        if name == self._name:
            self.clear()

    def clear(self) -> None:
        """Forgets whatever there is."""
        self._name, self._parts = None, {}
