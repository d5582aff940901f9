"""Responses by their shape, which is what is left of what they tell when all that varies is masked: counted, sampled.

Contract: `Shapes.add` takes responses one after another, in memory bounded by MOST_SHAPES and ROOM: beyond, the shapes
that fewest hosts have are put together by how they begin, or let go, and counted in `dropped`. The result depends on
the order of the input only then. Pure.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct, field

from engine.insight.learn.sketches import Distinct, Sample
from matcher.tools.tokens import Telling, mask, tellings, tokens

MOST_SHAPES = 20_000
ROOM = 256 << 20  # bytes of samples, all together
SAMPLES = 48  # different responses of a shape
KEPT = 2048  # bytes of a response that are looked at; fingerprints have 900
BEGINNING = (12, 3)  # bytes of the mask of a text, and of a binary one, by which rare shapes go together
MOST_TEXT = 1 << 14  # characters of a fingerprint that is kept
REMEMBERED = 1 << 15  # shapes of texts that come again
_MOST_PORTS = 64
_COST = 300  # bytes that Python takes for a sample, besides its text


class Answer(Struct, frozen=True):
    """A response that nobody named. probe: its index in the database; soft: the service, where that is known.

    ip, port: empty and 0 where nobody says; text: the fingerprint it was in, as Nmap takes it, or empty.
    """

    probe: int
    data: bytes
    soft: str = ""
    ip: str = ""
    port: int = 0
    pseudo: bool = False
    text: str = ""


class Shape(Struct):
    """probe: index; form: as `telling` has it; mask: the first one's. rows: responses; pseudo: of such hosts.

    services: pairs of host and port, of hosts that answer alike on many ports one. ports, softs: how often, the first
    few. text: the fingerprint with the least digest.
    """

    probe: int
    form: str
    mask: bytes
    rows: int = 0
    pseudo: int = 0
    hosts: Distinct = field(default_factory=Distinct)
    services: Distinct = field(default_factory=Distinct)
    ports: Counter[int] = field(default_factory=Counter)
    softs: Counter[str] = field(default_factory=Counter)
    samples: Sample[bytes] = field(default_factory=lambda: Sample(SAMPLES))
    text: str = ""
    text_digest: int = 0

    @property
    def size(self) -> tuple[int, int, int]:
        """What the largest has most of: hosts, then services, then rows."""
        services = min(self.services.count, self.rows)  # beyond a few hundred they are estimates
        return min(self.hosts.count, services), services, self.rows

    def merge(self, other: "Shape") -> None:
        """Take in what another has, if it is one of the same kind."""
        self.rows += other.rows
        self.pseudo += other.pseudo
        self.hosts.merge(other.hosts)
        self.services.merge(other.services)
        self.ports.update(other.ports)
        self.softs.update(other.softs)
        for digest, data in other.samples.things.items():
            self.samples.add(digest, data)
        self.take_text(other.text, other.text_digest)

    def take_text(self, text: str, digest: int) -> None:
        if text and (not self.text or digest < self.text_digest):
            self.text, self.text_digest = text, digest


def digest_of(*parts: bytes) -> int:
    """64 evenly spread bits, the same everywhere."""
    return int.from_bytes(blake2b(b"\0".join(parts), digest_size=8).digest(), "big")


class Shapes:
    """dropped: shapes that were let go, and dropped_rows: the responses that were counted for them."""

    def __init__(self, most: int = MOST_SHAPES, room: int = ROOM) -> None:
        self.dropped = self.dropped_rows = 0
        self._shapes: dict[tuple[int, str, bytes], Shape] = {}
        self._known: dict[bytes, bytes] = {}
        self._latest = (b"", b"", b"")  # a text, its mask and digest
        self._most = most
        self._room = room
        self._taken = 0

    def shape_of(self, response: bytes) -> bytes:
        """The digest of its shape, whatever the probe."""
        return self._digest(tellings(response[:KEPT])[0])

    def add(self, answer: Answer) -> None:
        """Count a response."""
        data = answer.data[:KEPT]
        part = tellings(data)[0]
        place = (answer.probe, part.form, self._digest(part))
        shape = self._shapes.get(place)
        if shape is None:
            shape = self._shapes[place] = Shape(answer.probe, part.form, self._masked(part)[0])
            self._taken += len(shape.mask) + 2000
        self._count(shape, answer, data)
        if len(self._shapes) > self._most or self._taken > self._room:
            self._drop()

    def all(self) -> list[Shape]:
        """Largest first; equal ones by probe and mask."""
        return sorted(
            self._shapes.values(), key=lambda one: (*(-size for size in one.size), one.probe, one.form, one.mask)
        )

    def _digest(self, part: Telling) -> bytes:
        key = self._known.get(part.text)
        if key is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            key = self._known[part.text] = self._masked(part)[1]
        return key

    def _masked(self, part: Telling) -> tuple[bytes, bytes]:
        if self._latest[0] != part.text or not part.text:
            shown = mask(tokens(part))
            self._latest = part.text, shown, blake2b(shown, digest_size=16).digest()
        return self._latest[1:]

    def _count(self, shape: Shape, answer: Answer, data: bytes) -> None:
        shape.rows += 1
        shape.pseudo += answer.pseudo
        # Of stored responses without an address each different one is a host.
        host = answer.ip.encode("utf-8", "replace") or b"\xff%d" % digest_of(data)
        shape.hosts.add(digest_of(host))
        shape.services.add(digest_of(host, b"" if answer.pseudo else b"%d" % answer.port))
        if answer.port in shape.ports or len(shape.ports) < _MOST_PORTS:
            shape.ports[answer.port] += 1
        if answer.soft in shape.softs or len(shape.softs) < _MOST_PORTS:
            shape.softs[answer.soft] += 1
        digest = digest_of(data)
        if shape.samples.wants(digest):
            shape.samples.add(digest, data)
            self._taken += len(data) + _COST
        if 0 < len(answer.text) <= MOST_TEXT:
            self._taken -= len(shape.text)
            shape.take_text(answer.text, digest_of(answer.text.encode("utf-8", "replace")))
            self._taken += len(shape.text)

    def _drop(self) -> None:
        """Make room: the rarest shapes go together by how they begin, and those that stay alone go altogether."""
        kept = self.all()
        keep = self._that_fit(kept)
        stay = set(map(id, kept[:keep]))
        self._shapes = {place: shape for place, shape in self._shapes.items() if id(shape) in stay}
        rough: dict[tuple[int, str, bytes], Shape] = {}
        for shape in kept[keep:]:
            place = (shape.probe, shape.form, b"~" + shape.mask[: BEGINNING[shape.form == "binary"]])
            if (known := self._shapes.get(place) or rough.get(place)) is not None:
                known.merge(shape)
            else:
                rough[place] = shape
        grown = sorted(self._shapes.items(), key=lambda item: item[1].size, reverse=True)  # by what went to them
        self._shapes = {}
        self._taken = 0
        for place, shape in (*grown, *((place, shape) for place, shape in rough.items() if shape.rows > 1)):
            room = _room_of(shape)
            if len(self._shapes) < self._most * 9 // 10 and self._taken + room <= self._room * 9 // 10:
                self._shapes[place] = shape
                self._taken += room
            else:
                self._let_go(shape)
        for shape in rough.values():
            if shape.rows == 1:
                self._let_go(shape)

    def _let_go(self, shape: Shape) -> None:
        self.dropped += 1
        self.dropped_rows += shape.rows

    def _that_fit(self, kept: Sequence[Shape]) -> int:
        """How many of the largest take three quarters of the room."""
        room = self._room * 3 // 4
        for number, shape in enumerate(kept[: self._most * 3 // 4]):
            room -= _room_of(shape)
            if room < 0:
                return number
        return min(len(kept) - 1, self._most * 3 // 4)


def _room_of(shape: Shape) -> int:
    return 2000 + len(shape.mask) + len(shape.text) + sum(len(data) + _COST for data in shape.samples.things.values())
