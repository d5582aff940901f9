"""What a lake is: a destination that takes a run's rows in batches, each of them once.

A run's rows lie in numbered, committed segments (engine/state). A *batch* is the rows of consecutive segments, and is
named by the run and by the numbers of its first and last segment: `Batch`. `state/delivery.py` gives the batches to
each lake, in order, with one writer at a time for a run, and says the same batch again when it does not know whether it
arrived. So a lake is exactly-once if it keeps to this:

    holds(batch)   whether the destination has it, asked of the destination itself. Batches come in order, so the
                   last segment of the run that it has is all a lake needs to know
    write(rows)    lean NDJSON lines of the batch, any number of times; nothing that readers can see. Lines that are no
                   rows raise an InputError or OutputError
    commit(batch)  all that was written becomes visible at once, with the mark that `holds` looks for. Where a batch
                   becomes several files and the format has no transactions, each appears whole, and doing it again
                   adds only what is missing
    discard()      forget what was written; after any error, and more than once. Never raises

Errors: `Unavailable` for what may pass by itself (no connection, a server that starts, a conflict with another
writer): the batch is tried again for a while. `OutputError` for what will not (no permission, another schema).
Messages are one line: which destination, what, how to mend.
"""

from typing import Protocol

from msgspec import Struct

from engine.errors import OutputError


class Unavailable(OutputError):  # noqa: N818 - it is not always one
    """A destination cannot take rows now; it may later."""


class Delivery(Struct, frozen=True):
    """The run whose rows are delivered.

    run: a name that no other run has, letters, digits and hyphens. scan: what people call it, never empty, the value of
    the partition `scan=`; several runs may share it. full: rows in NDJSON have every field. staging: a local folder of
    the run for files that do not count yet, removed by the next run. size: of a file, in bytes, about.
    """

    run: str
    scan: str
    staging: str
    full: bool = False
    size: int = 128 << 20


class Batch(Struct, frozen=True):
    """Consecutive segments. first, last: numbers from 1."""

    first: int
    last: int


class Lake(Protocol):
    """name: the URL as people may see it, without secrets."""

    name: str

    def holds(self, batch: Batch) -> bool: ...

    def write(self, rows: bytes) -> None: ...

    @property
    def size(self) -> int:
        """Bytes that the batch has taken so far at the destination, about; it is closed at `Delivery.size`.

        A batch is closed only where a segment ends. A lake in which an open batch is in other people's way says
        `Delivery.size` with the first row, so that each of its batches is a segment.
        """

    def commit(self, batch: Batch) -> None: ...

    def discard(self) -> None: ...

    def close(self) -> None:
        """Let go of everything. Never raises."""
