"""What could not be read, counted, with the first few in full; and what lines of mere text are in the end.

A line that is neither a record nor part of a fingerprint is a fault among records, and means nothing in a report, where
fingerprints stand between headings, tables and prose. Which of them an input is, its first record, fingerprint or
heading tells. Texts before that are kept until it has come; where it never comes, nothing in the input could be used.
"""

from msgspec import Struct, field

KEPT = 20  # faults in full

RECORDS = "records"
REPORT = "report"


class Faults(Struct):
    """first: (line, reason) of the first KEPT, in order; who reads millions of bad lines remembers no more of them."""

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        self.count += 1
        if len(self.first) < KEPT:
            self.first.append((line, reason))

    def move(self, lines: int) -> None:
        """So many lines more precede them."""
        self.first = [(line + lines, reason) for line, reason in self.first]

    def extend(self, other: "Faults") -> None:
        self.count += other.count
        self.first = sorted(self.first + other.first)[:KEPT]


class Texts:
    """Decides what lines of text are. Chunk by chunk, in the order of the input."""

    def __init__(self) -> None:
        self._form = ""
        self._waiting = Faults()

    def judge(self, form: str, texts: Faults) -> tuple[Faults, int]:
        """The faults among the texts so far undecided, and how many of them mean nothing.

        form: what the first line of the chunk that tells it says the input is: RECORDS, REPORT, or nothing yet.
        """
        self._form = self._form or form
        self._waiting.extend(texts)
        if not self._form:
            return Faults(), 0
        decided, self._waiting = self._waiting, Faults()
        return (decided, 0) if self._form == RECORDS else (Faults(), decided.count)

    def close(self) -> Faults:
        """What was never decided."""
        return self._waiting
