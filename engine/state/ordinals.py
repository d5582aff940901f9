"""Sets of ordinals, kept as sorted ranges: which targets are done.

Targets finish nearly in the order of the input, so their ordinals are a few long ranges with a frayed edge as wide as
what is in flight. Memory is 16 bytes a range, whatever the number of targets; adding costs a fraction of a microsecond
(new ordinals wait in a small buffer, which is sorted and merged when it is full or somebody asks).
"""

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator

BUFFERED = 65_536  # ordinals that wait to be merged
MAX_RANGES = 1 << 24  # of a set that is read, which then takes 256 MiB
UNPACKED = 1 << 16  # bytes at a time
LIMIT = (1 << 64) - 1  # behind the last ordinal

Range = tuple[int, int]
"""First ordinal, and the one behind the last."""


class OrdinalSet:
    """Ordinals are 0 to 2^64 - 2."""

    __slots__ = ("_buffer", "_starts", "_stops")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts = array("Q")
        self._stops = array("Q")
        self._buffer = array("Q")
        self._merge(list(ranges))

    def update(self, ordinals: Iterable[int]) -> None:
        self._buffer.extend(ordinals)
        if len(self._buffer) > BUFFERED:
            self._settle()

    def __or__(self, other: "OrdinalSet") -> "OrdinalSet":
        return OrdinalSet([*self.ranges(), *other.ranges()])

    def __contains__(self, ordinal: int) -> bool:
        return self.covers(ordinal, ordinal + 1)

    def covers(self, start: int, stop: int) -> bool:
        """Whether all of start .. stop - 1 are in the set."""
        self._settle()
        place = bisect_right(self._starts, start) - 1
        return place >= 0 and stop <= self._stops[place]

    def missing(self, start: int, stop: int) -> Iterator[range]:
        """What of start .. stop - 1 is not in the set, in order."""
        self._settle()
        place = max(0, bisect_right(self._starts, start) - 1)
        while place < len(self._starts) and start < stop:
            if start < self._starts[place]:
                yield range(start, min(stop, self._starts[place]))
            start = max(start, self._stops[place])
            place += 1
        if start < stop:
            yield range(start, stop)

    def ranges(self) -> Iterator[Range]:
        """Disjoint, ascending, with a gap between any two."""
        self._settle()
        return zip(self._starts, self._stops, strict=True)

    @property
    def low_water(self) -> int:
        """The lowest ordinal that is not in the set."""
        self._settle()
        return self._stops[0] if self._starts and not self._starts[0] else 0

    def __len__(self) -> int:
        self._settle()
        return sum(self._stops) - sum(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OrdinalSet) and list(self.ranges()) == list(other.ranges())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"OrdinalSet({list(self.ranges())})"

    def encode(self) -> bytes:
        """Gap, length, gap, length: each in groups of seven bits, the lowest first; all of it deflated."""
        packed = bytearray()
        end = 0
        for start, stop in self.ranges():
            for number in (start - end, stop - start):
                while number > 0x7F:
                    packed.append(number & 0x7F | 0x80)
                    number >>= 7
                packed.append(number)
            end = stop
        return zlib.compress(packed)

    @classmethod
    def decode(cls, data: bytes) -> "OrdinalSet":
        """The set that `encode` wrote. Raises ValueError for anything else, however it unpacks."""
        decoded = cls()
        numbers = _numbers(data)
        end = 0
        for gap, length in zip(numbers, numbers, strict=True):
            if not length or (not gap and end) or len(decoded._starts) == MAX_RANGES:
                raise ValueError("not a set of ordinals")
            start = end + gap
            end = start + length
            if end > LIMIT:
                raise ValueError("an ordinal is too large")
            decoded._starts.append(start)
            decoded._stops.append(end)
        return decoded

    def _settle(self) -> None:
        if not self._buffer:
            return
        ordinals = sorted(self._buffer)
        del self._buffer[:]
        ranges = []
        start = stop = ordinals[0]
        for ordinal in ordinals:
            if ordinal > stop:
                ranges.append((start, stop))
                start = ordinal
            stop = ordinal + 1
        ranges.append((start, stop))
        self._merge(ranges)

    def _merge(self, ranges: list[Range]) -> None:
        """Unite with ranges in any order, which may overlap."""
        ranges += zip(self._starts, self._stops, strict=True)
        ranges.sort()  # two ascending runs, as a rule: one linear pass
        starts, stops = array("Q"), array("Q")
        end = -1
        for start, stop in ranges:
            if start > end:
                if stop == start:
                    continue
                starts.append(start)
                stops.append(stop)
                end = stop
            elif stop > end:
                stops[-1] = end = stop
        self._starts, self._stops = starts, stops


def _numbers(data: bytes) -> Iterator[int]:
    """The numbers that `encode` packed. Raises ValueError."""
    unpacker = zlib.decompressobj()
    number = shift = 0
    try:
        while not unpacker.eof:
            unpacked = unpacker.decompress(data, UNPACKED)
            data = unpacker.unconsumed_tail
            if not unpacked and not unpacker.eof:
                raise ValueError("cut short")
            for byte in unpacked:
                number |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    yield number
                    number = shift = 0
                elif shift > 63:
                    raise ValueError("a number is too large")
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if shift or unpacker.unused_data:
        raise ValueError("not a set of ordinals")
