"""A running digest over the bytes of all inputs, by which a resumed run knows that its targets are those of before.

Targets are known by their ordinals, so other bytes before a target would give its row to another one. The digest is
taken while the inputs are read, works on pipes, and costs about a nanosecond a byte.
"""

from hashlib import blake2b
from threading import Lock
from typing import Annotated

from msgspec import Meta, Struct

from engine.errors import ConfigError

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Position(Struct, frozen=True):
    """How far the inputs were read. bytes: of all inputs together; digest: over these bytes, hex."""

    bytes: Count = 0
    digest: str = ""


class InputDigest:
    """expected: how far the run before came; until these bytes have been seen again, `verified` is false.

    Fed where the inputs are read, and asked for its position where segments are written, which is another thread.
    """

    def __init__(self, expected: Position | None = None) -> None:
        self._hash = blake2b(digest_size=16)
        self._length = 0
        self._expected = expected or Position()
        self.verified = not self._expected.bytes
        self._lock = Lock()

    def begin_input(self) -> None:
        """Another input begins. Said at its begin, so that the last one may have grown since."""
        self.feed(b"\0input\0")

    def feed(self, chunk: bytes) -> None:
        """Raises ConfigError when the bytes are not those of the run before."""
        if not self.verified and self._length + len(chunk) >= self._expected.bytes:
            rest = self._expected.bytes - self._length
            self._add(chunk[:rest])
            if self.position() != self._expected:
                raise ConfigError(self._differ())
            self.verified = True
            chunk = chunk[rest:]
        self._add(chunk)

    def position(self) -> Position:
        with self._lock:
            return Position(self._length, self._hash.hexdigest())

    def check_end(self) -> None:
        """The inputs have ended. Raises ConfigError when they are shorter than before."""
        if not self.verified:
            raise ConfigError(self._differ())

    def _add(self, chunk: bytes) -> None:
        with self._lock:
            self._hash.update(chunk)
            self._length += len(chunk)

    def _differ(self) -> str:
        return (
            "the inputs are not those that this run was begun with; "
            "give the same bytes in the same order, or begin anew in another folder"
        )
